// out = x W^T, the bulk of a step's arithmetic.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/cpu/quantized_panel.h"
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

// Reused from call to call.
struct MatMulWorkspace {
  std::vector<ActivationBlock> x;  // [rows, bytes, blocks of columns]
  std::vector<AmxBlock> amx_x;     // [rows / 16, blocks of columns, bytes]
  bool amx = true;                 // where it is better; no bit depends on it
};

// Each output is one chain of fused multiply-adds, from 0, over rising columns,
// or over rising blocks of columns where weights are quantised
// (quantized_matmul.h); then the bias is added, then the old output. Its bits
// depend on nothing else.
void MatMul(const MatMulOperands& operands, MatMulWorkspace* workspace,
            ThreadPool* pool);

}  // namespace headcount
