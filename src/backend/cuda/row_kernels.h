// Operations on the rows of an activation, one by one. See backend.h for what
// each computes. All pointers are device addresses, of dense row-major arrays.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/kernel.h"
#include "backend/cuda/packed_layout.h"

namespace headcount::cuda {

// Grid: a block for each of `rows`.
struct EmbedParams {
  const std::byte* weights = nullptr;
  PackedLayout layout;
  const int32_t* tokens = nullptr;  // [rows]
  float* out = nullptr;             // [rows, layout.cols]
  int32_t rows = 0;
};
Kernel<EmbedParams> FindEmbedKernel();

// Grid: a block for each of `rows`.
struct RmsNormParams {
  const float* x = nullptr;       // [rows, cols]
  const float* weight = nullptr;  // [cols]
  float* out = nullptr;           // [rows, cols], may be x
  int32_t rows = 0;
  int32_t cols = 0;
  float epsilon = 0;
};
Kernel<RmsNormParams> FindRmsNormKernel();

// Grid: SwiGluGrid blocks.
struct SwiGluParams {
  const float* x = nullptr;  // [rows, 2 * width]
  float* out = nullptr;      // [rows, width]
  int32_t rows = 0;
  int32_t width = 0;
};
Kernel<SwiGluParams> FindSwiGluKernel();
int SwiGluGrid(const SwiGluParams& params);

// Grid: a block for each of `rows`, those of `out`.
struct GatherRowsParams {
  const float* x = nullptr;          // [*, cols]
  const int32_t* indices = nullptr;  // [rows]
  float* out = nullptr;              // [rows, cols]
  int32_t rows = 0;
  int32_t cols = 0;
};
Kernel<GatherRowsParams> FindGatherRowsKernel();

// Grid: a block for each of `rows`.
struct GateHeadsParams {
  float* context = nullptr;  // [rows, query_heads * head_dim], in place
  // [rows]: where the gates of a row's sequence begin in `gates`, of all layers
  // (StepSequence::gates_begin); -1: it has none.
  const int64_t* row_gates = nullptr;
  const float* gates = nullptr;
  int64_t first_gate = 0;  // of this layer: AttentionLayer::query_heads_below
  int32_t rows = 0;
  int32_t query_heads = 0;
  int32_t head_dim = 0;
};
Kernel<GateHeadsParams> FindGateHeadsKernel();

// cos and sin of position * inverse_frequency, a product in float32 as on the
// host, times scale: the two differ by the last bits of cos and sin. Grid: a
// block for each of `rows`.
struct RopeTableParams {
  const int32_t* positions = nullptr;        // [rows]
  const float* inverse_frequency = nullptr;  // [half]
  float* cos = nullptr;                      // [rows, half]
  float* sin = nullptr;
  int32_t rows = 0;
  int32_t half = 0;  // head_dim / 2
  float scale = 1.0f;
};
Kernel<RopeTableParams> FindRopeTableKernel();

}  // namespace headcount::cuda
