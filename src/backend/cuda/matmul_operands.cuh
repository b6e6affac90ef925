// What products of packed weights with rows of x are made of: both in the
// registers of tensor cores.
#pragma once

#include <cmath>

#include "backend/cuda/matmul_kernels.h"
#include "backend/cuda/ptx.h"

namespace headcount::cuda {

// Stages i, i + 8, ... of the columns have a sum of their own, and these are
// added up in their order, whatever the kernel.
inline constexpr int kSumClasses = 8;
inline constexpr int kMatMulWarps = 8;
inline constexpr int kMatMulThreads = 32 * kMatMulWarps;
inline constexpr int kGroupRows = 8;  // rows of x in a tile of tensor cores

// --- Rows of x --------------------------------------------------------------

// Eight columns of a row of x.
struct Eight {
  float value[8];
};

// Columns [col, col + 8), zeros beyond the matrix.
DEVICE Eight LoadEight(const MatMulParams& params, int row, int col) {
  if (row >= params.rows) return {};
  const auto cols = static_cast<int>(params.layout.cols);
  const float* from = params.x + static_cast<int64_t>(row) * cols + col;
  if (col + 8 <= cols && cols % 4 == 0) {
    const float4 low = *reinterpret_cast<const float4*>(from);
    const float4 high = *reinterpret_cast<const float4*>(from + 4);
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
  }
  Eight x{};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (col + i < cols) x.value[i] = from[i];
  }
  return x;
}

// Pairs of neighbouring columns in two parts, bf16 each.
struct SplitEight {
  uint32_t high[4];
  uint32_t low[4];
};

DEVICE SplitEight Split(const Eight& x) {
  SplitEight split;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float first = x.value[2 * i];
    const float second = x.value[2 * i + 1];
    const uint32_t high = ptx::PackBf16(first, second);
    split.high[i] = high;
    split.low[i] = ptx::PackBf16(first - __uint_as_float(high << 16),
                                 second - __uint_as_float(high & 0xFFFF0000u));
  }
  return split;
}

// What SplitRows makes of x: see there.
inline constexpr int kSplitPartBytes = 512;
inline constexpr int kSplitSumsOffset = 2 * kSplitPartBytes;
constexpr int SplitBlockBytes(ElementType dtype) {
  return kSplitSumsOffset + (dtype == ElementType::kQ4_1 ? kGroupRows * 4 : 0);
}
constexpr int64_t SplitBlocks(const PackedLayout& layout) {
  return layout.stages() * (StageCols(layout.dtype) / kBlockCols);
}
constexpr int SplitGroups(int rows) {
  return (rows + kGroupRows - 1) / kGroupRows;
}

// Where block `block` of group `group` is in params.split; beyond the last
// group, that of the last one, whose products nobody stores.
template <ElementType kDtype, class Offset>
DEVICE Offset SplitOffset(const MatMulParams& params, int group, int block) {
  const int last = SplitGroups(params.rows) - 1;
  const auto blocks = static_cast<int>(
      SplitBlocks({.dtype = kDtype, .rows = 0, .cols = params.layout.cols}));
  return (static_cast<Offset>(group < last ? group : last) * blocks + block) *
         SplitBlockBytes(kDtype);
}

// --- Weights ----------------------------------------------------------------

// What a lane loads of a stage of one panel.
template <ElementType kDtype>
struct StagePart {
  uint32_t words[2][4];
  // kQ8_0: of block lane % 2, kQ4_1: of block lane % 4: two scales, two minima.
  uint32_t scales[2];
};

template <ElementType kDtype>
DEVICE void LoadStage(const std::byte* stage, int lane,
                      StagePart<kDtype>* part) {
  ptx::LoadStream16(stage + lane * 16, part->words[0]);
  ptx::LoadStream16(stage + 512 + lane * 16, part->words[1]);
  if constexpr (kDtype == ElementType::kQ8_0) {
    part->scales[0] = __ldg(reinterpret_cast<const uint32_t*>(
        stage + EightBitScaleOffset(lane / 4, lane % 2)));
  } else if constexpr (kDtype == ElementType::kQ4_1) {
    const uint2 pair = __ldg(reinterpret_cast<const uint2*>(
        stage + FourBitScaleOffset(lane / 4, lane % 4)));
    part->scales[0] = pair.x;
    part->scales[1] = pair.y;
  }
}

// Two rows of a block of 32 columns as tensor cores take them: pair i of the
// lane's columns, of the row below 8 and the one 8 further. bf16.
struct WeightPairs {
  uint32_t pair[4][2];
};

// Of the first block of a stage: integers as they are, without scales.
DEVICE WeightPairs Pairs(const StagePart<ElementType::kQ8_0>& part) {
  WeightPairs pairs;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      // 128 + the low seven bits; 256 less of it is q, or 128 less where the
      // eighth is set.
      const uint32_t bytes = ptx::Prmt(part.words[0][half * 2 + i / 2], 0,
                                       i % 2 == 0 ? 0x4140u : 0x4342u);
      pairs.pair[i][half] = ptx::Bf16Add2((bytes & 0x007F007Fu) | 0x43004300u,
                                          (bytes & 0x00800080u) ^ 0xC380C380u);
    }
  }
  return pairs;
}
DEVICE WeightPairs Pairs(const StagePart<ElementType::kQ4_1>& part) {
  WeightPairs pairs;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t word = part.words[0][half];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pairs.pair[i][half] = ptx::Bf16Add2(
          (word >> (4 * i) & 0x000F000Fu) | 0x43004300u, 0xC300C300u);
    }
  }
  return pairs;
}
DEVICE WeightPairs Pairs(const StagePart<ElementType::kBf16>& part) {
  WeightPairs pairs;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs.pair[i][0] = part.words[i / 2][i % 2 * 2];
    pairs.pair[i][1] = part.words[i / 2][i % 2 * 2 + 1];
  }
  return pairs;
}
// Halves are sums of two bf16 numbers; exact.
struct SplitPairs {
  WeightPairs high;
  WeightPairs low;
};
DEVICE SplitPairs Pairs(const StagePart<ElementType::kF16>& part) {
  SplitPairs pairs;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t word = part.words[i / 2][i % 2 * 2 + half];
      const float first = ptx::HalfToFloat(static_cast<uint16_t>(word));
      const float second = ptx::HalfToFloat(static_cast<uint16_t>(word >> 16));
      const uint32_t high = ptx::PackBf16(first, second);
      pairs.high.pair[i][half] = high;
      pairs.low.pair[i][half] =
          ptx::PackBf16(first - __uint_as_float(high << 16),
                        second - __uint_as_float(high & 0xFFFF0000u));
    }
  }
  return pairs;
}

// Moves the next block of a stage to the place of the first.
DEVICE void NextBlock(StagePart<ElementType::kQ8_0>* part) {
#pragma unroll
  for (int i = 0; i < 4; ++i) part->words[0][i] = part->words[1][i];
}
DEVICE void NextBlock(StagePart<ElementType::kQ4_1>* part) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    part->words[0][i] = part->words[0][2 + i];
    part->words[0][2 + i] = part->words[1][i];
    part->words[1][i] = part->words[1][2 + i];
  }
}

// --- Products ---------------------------------------------------------------

// sums += weights x over a block of 32 columns. Sums 0 and 1 are of the row
// below 8, for rows 2 c and 2 c + 1 of x where c = lane % 4; 2 and 3 of the row
// 8 further.
DEVICE void Multiply(const WeightPairs& weights, const uint32_t (&x)[4],
                     float (&sums)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t a[4] = {weights.pair[i][0], weights.pair[i][1],
                           weights.pair[i + 1][0], weights.pair[i + 1][1]};
    const uint32_t b[2] = {x[i], x[i + 1]};
    ptx::MmaBf16(sums, a, b);
  }
}
DEVICE void Multiply(const WeightPairs& weights, const SplitEight& x,
                     float (&sums)[4]) {
  Multiply(weights, x.low, sums);
  Multiply(weights, x.high, sums);
}
// The product of both low parts is below what splitting x leaves out.
DEVICE void Multiply(const SplitPairs& weights, const SplitEight& x,
                     float (&sums)[4]) {
  Multiply(weights.low, x.high, sums);
  Multiply(weights.high, x, sums);
}

// The two halves of a word.
DEVICE float2 Halves(uint32_t word) {
  return {ptx::HalfToFloat(static_cast<uint16_t>(word)),
          ptx::HalfToFloat(static_cast<uint16_t>(word >> 16))};
}

// Of a block of 32 columns of the lane's row of x.
DEVICE float SumColumns(const Eight& x) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += x.value[i];
  sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
  return sum + __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
}

// The same of rows 2 c and 2 c + 1.
DEVICE float2 SumColumnsOfPair(const Eight& x, int lane) {
  const float sum = SumColumns(x);
  const int from = lane % 4 * 8;
  return {__shfl_sync(0xFFFFFFFFu, sum, from),
          __shfl_sync(0xFFFFFFFFu, sum, from + 4)};
}

// sums += scale * product, and the minimum times the sum of x. The pairs of
// `scale` and `min` are of the two rows of weights, those of x_sum of x.
template <bool kHasMin>
DEVICE void AddScaled(const float (&product)[4], float2 scale, float2 min,
                      float2 x_sum, float (&sums)[4]) {
  sums[0] = fmaf(scale.x, product[0], sums[0]);
  sums[1] = fmaf(scale.x, product[1], sums[1]);
  sums[2] = fmaf(scale.y, product[2], sums[2]);
  sums[3] = fmaf(scale.y, product[3], sums[3]);
  if constexpr (kHasMin) {
    sums[0] = fmaf(min.x, x_sum.x, sums[0]);
    sums[1] = fmaf(min.x, x_sum.y, sums[1]);
    sums[2] = fmaf(min.y, x_sum.x, sums[2]);
    sums[3] = fmaf(min.y, x_sum.y, sums[3]);
  }
}

}  // namespace headcount::cuda
