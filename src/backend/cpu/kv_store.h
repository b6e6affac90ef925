// Rotary embedding, and the pages that attention reads.
//
// Inside its page a key lies across, so that one load takes the same element of
// 16 neighbouring tokens and no dot product needs a sum across lanes. Where
// elements are smaller than 32 bits, n = 2 (bf16) or 4 (int8) that are summed
// over make up a word:
//
//   K   [head_dim / n][kBlockTokens][n]
//   V   [kBlockTokens / n][head_dim][n], the last n being tokens
//
// n is 1 for f32, f16 and fp8_e4m3, whose rows of V are KvRowBytes apart. For
// int4, the words of int8 hold two elements in each byte, low nibble first:
//
//   K   [head_dim / 8][kBlockTokens][4]: elements 8 i + j and 8 i + 4 + j
//   V   [kBlockTokens / 4][head_dim / 32, rounded up][16][4]: elements 32 i + j
//       and 32 i + 16 + j
//
// Nothing but the own bytes of a token is written, so that threads can store
// neighbouring tokens at a time.
#pragma once

#include "backend/cpu/step_state.h"
#include "backend/cpu/thread_pool.h"

namespace headcount {

// See Backend::RotateAndStoreKv.
void RotateAndStoreKv(const StepState& step, const AttentionLayer& layer,
                      float* qkv, void* arena, ThreadPool* pool);

}  // namespace headcount
