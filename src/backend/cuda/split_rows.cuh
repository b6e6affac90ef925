// Rows of x in two parts, as tensor cores take them: once for all blocks of a
// product.
//
// 8 rows make a group, as 16 outputs make a panel (packed_layout.h), and its
// columns come in blocks of 32, as many as the weights' stages have, with zeros
// beyond the matrix. A block of
//
//   high[32][8], low[32][8]   bf16; lane 4 r + c has columns 8 c .. 8 c + 7 of
//                             row r
//   sum[8]                    float32, of each row's columns; beside kQ4_1 only
#pragma once

#include "backend/cuda/matmul_operands.cuh"

namespace headcount::cuda {

// Grid: a warp for each block of each group.
__global__ void __launch_bounds__(kMatMulThreads)
    SplitRows(const __grid_constant__ MatMulParams params) {
  const PackedLayout& layout = params.layout;
  const auto thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int64_t index =
      int64_t{blockIdx.x} * kMatMulWarps + static_cast<int64_t>(thread / 32);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  const int64_t blocks = SplitBlocks(layout);
  const auto group = static_cast<int>(index / blocks);
  const auto block = static_cast<int>(index % blocks);
  if (group >= SplitGroups(params.rows)) return;
  const Eight x = LoadEight(params, group * kGroupRows + lane / 4,
                            block * kBlockCols + lane % 4 * 8);
  const SplitEight split = Split(x);
  std::byte* to = params.split + index * SplitBlockBytes(layout.dtype);
  const auto store = [&](const uint32_t(&words)[4], int offset) {
    *reinterpret_cast<uint4*>(to + offset + lane * 16) = {words[0], words[1],
                                                          words[2], words[3]};
  };
  store(split.high, 0);
  store(split.low, kSplitPartBytes);
  if (layout.dtype != ElementType::kQ4_1) return;
  const float sum = SumColumns(x);
  if (lane % 4 == 0) {
    reinterpret_cast<float*>(to + kSplitSumsOffset)[lane / 4] = sum;
  }
}

}  // namespace headcount::cuda
