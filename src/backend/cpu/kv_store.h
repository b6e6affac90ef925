// Rotary embedding, and the pages that attention reads.
//
// Inside its page a key lies across: K is [head_dim][kBlockTokens], so that one
// load takes the same element of 16 neighbouring tokens and no dot product
// needs a sum across lanes. V is [kBlockTokens][head_dim].
#pragma once

#include "backend/cpu/step_state.h"
#include "backend/cpu/thread_pool.h"

namespace headcount {

// See Backend::RotateAndStoreKv.
void RotateAndStoreKv(const StepState& step, const AttentionLayer& layer,
                      float* qkv, void* arena, ThreadPool* pool);

}  // namespace headcount
