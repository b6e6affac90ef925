// out = x W^T, the bulk of a step's arithmetic.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/cpu/thread_pool.h"

namespace headcount {

struct MatMulOperands {
  const PackedMatrix* w = nullptr;
  const float* x = nullptr;  // [rows, w->cols()]
  int64_t rows = 0;
  const float* bias = nullptr;  // [w->rows()] or null
  Backend::MatMulMode mode = Backend::MatMulMode::kStore;
  float* out = nullptr;  // [rows, w->rows()]
};

// Each output is one chain of fused multiply-adds over rising columns, from 0;
// then the bias is added, then the old output. Its bits depend on nothing else.
void MatMul(const MatMulOperands& operands, ThreadPool* pool);

}  // namespace headcount
