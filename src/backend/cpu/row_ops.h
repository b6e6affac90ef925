// Operations on the rows of an activation, one by one. See backend.h for what
// each computes.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "backend/backend.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/cpu/thread_pool.h"

namespace headcount {

void Embed(const PackedMatrix& table, absl::Span<const int32_t> tokens,
           float* out, ThreadPool* pool);

struct RmsNormOperands {
  const float* x = nullptr;       // [rows, cols]
  const float* weight = nullptr;  // [cols]
  float epsilon = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  float* out = nullptr;  // [rows, cols], may be x
};
void RmsNorm(const RmsNormOperands& operands, ThreadPool* pool);

void GateHeads(const StepInputs& inputs, const AttentionLayer& layer,
               float* context);

void SwiGlu(const float* x, int64_t rows, int64_t width, float* out,
            ThreadPool* pool);

void GatherRows(const float* x, absl::Span<const int32_t> indices, int64_t cols,
                float* out);

}  // namespace headcount
