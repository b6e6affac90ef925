// Rotary embedding: from a configuration to frequencies.
#pragma once

#include "backend/backend.h"
#include "model/model_config.h"

namespace headcount {

// The inverse frequencies of `head_dim / 2` pairs, and the scale of cosines and
// sines, as Hugging Face transformers computes them (modeling_rope_utils.py):
//   default  theta^(-2i / head_dim) (Su et al. 2021, arXiv:2104.09864)
//   linear   divided by the factor (Chen et al. 2023, arXiv:2306.15595)
//   llama3   long wavelengths divided, short ones kept, a ramp between
//   yarn     "NTK by parts" (Peng et al. 2023, arXiv:2309.00071)
// and divided by `config.divisors`, as llama.cpp does. Computed in double
// precision, rounded once.
Rope MakeRope(const RopeConfig& config, int head_dim);

}  // namespace headcount
