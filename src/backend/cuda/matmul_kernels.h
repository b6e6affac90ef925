// Products of activations with packed weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cuda/kernel.h"
#include "backend/cuda/packed_layout.h"

namespace headcount::cuda {

// All pointers are device addresses; matrices are dense and row-major.
struct MatMulParams {
  const std::byte* weights = nullptr;  // at a multiple of 16 bytes
  PackedLayout layout;
  const float* x = nullptr;     // [rows, layout.cols], at a multiple of 16
  const float* bias = nullptr;  // [layout.rows] or null
  float* out = nullptr;         // [rows, layout.rows]; not x
  int32_t rows = 0;
  bool add = false;            // to what `out` holds
  std::byte* split = nullptr;  // scratch, MatMulPlan::split_bytes of it
};

struct MatMulLaunch {
  Kernel<MatMulParams> kernel;
  int grid = 0;
};

// How a product is launched. `split`, if there is one, comes first, with the
// same parameters.
struct MatMulPlan {
  MatMulLaunch product;
  MatMulLaunch split;
  int64_t split_bytes = 0;  // at a multiple of 16
};

// out = x W^T + bias, or out += that, of `rows` rows of x, at least 1, on a
// device with so many multiprocessors. Of any plan, the sum of a row has the
// same order and so the same bits.
//
// Weights are exact. Beside weights in float32, so is x. Else x is split in two
// numbers of 8 bits (bf16) that add up to it but for 2^-17 of it, and products
// of both with integers, bf16, or halves split in the same way, are summed in
// float32.
MatMulPlan PlanMatMul(const PackedLayout& layout, int32_t rows,
                      int multiprocessors);

}  // namespace headcount::cuda
