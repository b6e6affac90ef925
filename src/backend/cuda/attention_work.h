// What the attention kernels are given. Plain structures, the same on the host
// and on the device; all pointers are device addresses.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headcount::cuda {

// Elements of queries and outputs.
enum class Activation : int32_t { kF32, kF16, kBf16 };

// One KV head of a layer.
struct AttentionHead {
  int64_t page_offset = 0;  // of its page in a block of its group
  int32_t first_query = 0;
  int32_t num_queries = 0;
  // Of K and V where scales are static; else 1.
  float k_scale = 1.0f;
  float v_scale = 1.0f;
};

// Query rows [row, row + num_rows) of the step x the queries of one KV head
// against tokens [kv_begin, kv_end) of their sequence.
struct AttentionItem {
  int32_t row = 0;
  int32_t num_rows = 0;
  int32_t position = 0;  // of the first row in its sequence
  int32_t head = 0;      // in AttentionParams::heads
  // The sequence's table of the head's group, in AttentionParams::blocks.
  int32_t block_begin = 0;
  int32_t kv_begin = 0;  // a multiple of kBlockTokens
  int32_t kv_end = 0;
  // Where the result goes when the item sees only a part of what its rows
  // attend to: the index of its split; -1: it is the whole.
  int32_t split = -1;
  int32_t num_splits = 1;
  // First of num_rows * num_queries unfinished results of the first split; the
  // other splits follow.
  int32_t first_partial = 0;
  int32_t counter = 0;  // in AttentionParams::counters
  int32_t window = 0;   // tokens of it that a row sees; 0: all up to its own
};

// Tables (blocks, heads, items, worker_begin) are read before the launch in
// front of this one has ended: they must be older than that.
struct AttentionParams {
  const void* q = nullptr;  // of the step's first row; head by head
  void* out = nullptr;
  int64_t q_stride = 0;  // elements from one row to the next
  int64_t out_stride = 0;
  Activation activation = Activation::kF32;
  bool causal = true;         // else every row sees all of [0, kv_end)
  bool token_scales = false;  // pages hold a scale for each token
  const std::byte* arena = nullptr;
  const int64_t* blocks = nullptr;  // byte offsets in the arena
  const AttentionHead* heads = nullptr;
  const AttentionItem* items = nullptr;
  // [grid + 1]: block i walks items [worker_begin[i], worker_begin[i + 1]).
  const int32_t* worker_begin = nullptr;
  // Unfinished results: weighted sums of values [partial][head_dim], and
  // (highest score, sum of weights) of each.
  float* partial_sums = nullptr;
  float* partial_weights = nullptr;
  int32_t* counters = nullptr;  // all 0 before and after a launch
  float score_scale = 0;        // log2(e) / sqrt(head_dim)
};

}  // namespace headcount::cuda
