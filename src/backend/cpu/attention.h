// Causal attention over paged keys and values: the work items of a plan, walked
// by the thread pool (online softmax: Milakov & Gimelshein 2018,
// arXiv:1805.02867; along chunks of tokens: Dao et al. 2022, arXiv:2205.14135).
#pragma once

#include <vector>

#include "backend/cpu/step_state.h"
#include "backend/cpu/thread_pool.h"

namespace headcount {

// Memory of the operation, reused from call to call.
struct AttentionWorkspace {
  std::vector<float> partials;              // unfinished results of split items
  std::vector<std::vector<float>> scratch;  // [worker]
};

struct AttentionOperands {
  const StepState* step = nullptr;
  const AttentionLayer* layer = nullptr;
  const float* qkv = nullptr;
  const void* arena = nullptr;
  float* out = nullptr;
};

// See Backend::Attention. head_dim is a multiple of 8.
//
// The bits of a row's result depend on its query, on the keys and values that
// it sees and on the plan's chunk_tokens: not on tiles, splits, threads or the
// other rows of the step.
void Attention(const AttentionOperands& operands, AttentionWorkspace* workspace,
               ThreadPool* pool);

}  // namespace headcount
