// The hyperparameters of a model from the keys and tensors of a GGUF file.
#pragma once

#include "absl/status/statusor.h"
#include "format/gguf.h"
#include "model/model_config.h"

namespace headcount {

// Keys are those of llama.cpp (gguf-py/gguf/constants.py), limits those of
// model_limits.h. What GGUF leaves to the tensors comes from them: the
// vocabulary (rows of the embedding), whether there are biases and an output
// matrix, and frequency factors. InvalidArgument, starting with the file and
// naming key or tensor, for what is missing, out of range, inconsistent or not
// supported.
absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufFile& file);

}  // namespace headcount
