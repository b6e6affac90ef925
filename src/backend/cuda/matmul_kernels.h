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
  bool add = false;  // to what `out` holds
};

// out = x W^T + bias, or out += that. Of any kernel that is found, the sum of a
// row has the same order and so the same bits: `rows` only says how many rows
// of x are multiplied with a weight that has been loaded.
//
// Weights are exact. Beside weights in float32, so is x. Else x is split in two
// numbers of 8 bits (bf16) that add up to it but for 2^-17 of it, and products
// of both with integers, bf16, or halves split in the same way, are summed in
// float32.
//
// Grid: MatMulGrid blocks. `rows` is that of the parameters, at least 1.
Kernel<MatMulParams> FindMatMulKernel(const PackedLayout& layout, int32_t rows);
int MatMulGrid(const PackedLayout& layout, int32_t rows);

}  // namespace headcount::cuda
