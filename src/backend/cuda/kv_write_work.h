// What the kernel that writes keys and values is given. Plain structures, the
// same on the host and on the device; all pointers are device addresses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/attention_work.h"
#include "heads/kv_geometry.h"

namespace headcount::cuda {

// Where one KV head of a layer keeps its tokens.
struct KvWriteHead {
  KvPage page;
  int32_t group = 0;  // -1: nothing of the head is written
  // Where scales are static.
  float k_scale = 1.0f;
  float v_scale = 1.0f;
};

struct KvWriteParams {
  // [rows, (queries + 2 * kv_heads) * head_dim]: query heads, keys, values.
  // Queries are rotated in place.
  void* qkv = nullptr;
  Activation activation = Activation::kF32;
  int32_t rows = 0;
  int32_t queries = 0;  // heads
  int32_t kv_heads = 0;
  int32_t head_dim = 0;        // even, at most 256
  const float* cos = nullptr;  // [rows, head_dim / 2]
  const float* sin = nullptr;
  // [head_dim] or null; see AttentionLayer.
  const float* q_norm = nullptr;
  const float* k_norm = nullptr;
  float norm_epsilon = 0;
  std::byte* arena = nullptr;
  const int32_t* positions = nullptr;   // [rows]
  const int64_t* row_blocks = nullptr;  // [group, rows] byte offsets
  const KvWriteHead* heads = nullptr;   // [kv_heads]
};

}  // namespace headcount::cuda
