// Products of a few or many rows of x with packed weights, on tensor cores; and
// with weights in float32, without them.
//
// A block has a few panels of weights and 8 to 64 rows of x. Its warps share
// the columns: warp i takes stages i, i + 8, ... of all of the panels, from
// memory straight into the registers that tensor cores want them in, so that a
// weight is loaded once for all rows of x and nobody waits for others before
// the end. There the sums of the warps are added up, in their order.
#pragma once

#include <cmath>

#include "backend/cuda/matmul_kernels.h"
#include "backend/cuda/ptx.h"

namespace headcount::cuda {

inline constexpr int kMatMulWarps = 8;
inline constexpr int kMatMulThreads = 32 * kMatMulWarps;
inline constexpr int kGroupRows = 8;  // rows of x in a tile of tensor cores

// Panels of weights and groups of rows of x of a block.
template <ElementType kType, int kPanelCount, int kGroupCount>
struct MatMulShape {
  static constexpr ElementType kDtype = kType;
  static constexpr int kPanels = kPanelCount;
  static constexpr int kGroups = kGroupCount;
  static constexpr int kOutputs = kPanels * kPanelRows;  // of a row of x
  static constexpr int kBlocks = StageCols(kDtype) / kBlockCols;  // of a stage
  static constexpr bool kQuantized = kBlocks > 1;
  // Sums of all warps for one group.
  static constexpr int kSharedBytes =
      kMatMulWarps * kOutputs * kGroupRows * static_cast<int>(sizeof(float));
  // With few rows it is memory that a warp waits for. So that enough is on its
  // way, there are two blocks on a processor, and the next stage is loaded
  // while one is multiplied, if that leaves registers for both.
  static constexpr int kMinBlocks = kGroups <= 2 ? 2 : 1;
  static constexpr bool kAhead =
      kDtype == ElementType::kQ4_1 && kMinBlocks == 2
          ? kGroups == 1
          : kPanels * kGroups <= (kDtype == ElementType::kBf16 ? 16 : 8);
};

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

// Of the integers of block `block` of a stage.
DEVICE WeightPairs Pairs(const StagePart<ElementType::kQ8_0>& part, int block) {
  WeightPairs pairs;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      // 128 + the low seven bits; 256 less of it is q, or 128 less where the
      // eighth is set.
      const uint32_t bytes = ptx::Prmt(part.words[block][half * 2 + i / 2], 0,
                                       i % 2 == 0 ? 0x4140u : 0x4342u);
      pairs.pair[i][half] = ptx::Bf16Add2((bytes & 0x007F007Fu) | 0x43004300u,
                                          (bytes & 0x00800080u) ^ 0xC380C380u);
    }
  }
  return pairs;
}
DEVICE WeightPairs Pairs(const StagePart<ElementType::kQ4_1>& part, int block) {
  WeightPairs pairs;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t word = part.words[block / 2][block % 2 * 2 + half];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pairs.pair[i][half] = ptx::Bf16Add2(
          (word >> (4 * i) & 0x000F000Fu) | 0x43004300u, 0xC300C300u);
    }
  }
  return pairs;
}
DEVICE WeightPairs Pairs(const StagePart<ElementType::kBf16>& part, int) {
  WeightPairs pairs;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs.pair[i][0] = part.words[0][i];
    pairs.pair[i][1] = part.words[1][i];
  }
  return pairs;
}
// Halves are sums of two bf16 numbers; exact.
struct SplitPairs {
  WeightPairs high;
  WeightPairs low;
};
DEVICE SplitPairs Pairs(const StagePart<ElementType::kF16>& part, int) {
  SplitPairs pairs;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t word = part.words[half][i];
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

// The two halves of a word that another lane of the same row has.
DEVICE float2 ShuffleHalves(uint32_t word, int lane) {
  word = __shfl_sync(0xFFFFFFFFu, word, lane);
  return {ptx::HalfToFloat(static_cast<uint16_t>(word)),
          ptx::HalfToFloat(static_cast<uint16_t>(word >> 16))};
}

// Sums of a block of 32 columns of rows 2 c and 2 c + 1 of x.
DEVICE float2 SumColumns(const Eight& x, int lane) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += x.value[i];
  sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
  sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
  const int from = lane % 4 * 8;
  return {__shfl_sync(0xFFFFFFFFu, sum, from),
          __shfl_sync(0xFFFFFFFFu, sum, from + 4)};
}

// The sums of a warp.
template <class Shape>
class WarpTile {
 public:
  DEVICE WarpTile(int first_row, int lane)
      : first_row_(first_row), lane_(lane) {}

  // Adds the products with stage `stage` of the panels.
  DEVICE void Add(const MatMulParams& params, int stage,
                  const StagePart<Shape::kDtype> (&parts)[Shape::kPanels]) {
#pragma unroll
    for (int block = 0; block < Shape::kBlocks; ++block) {
      const int col = (stage * Shape::kBlocks + block) * kBlockCols;
      if constexpr (Shape::kQuantized) {
        AddQuantized(params, col, block, parts);
      } else {
        AddFloats(params, col, parts);
      }
    }
  }

  DEVICE const float (&sums(int panel, int group) const)[4] {
    return sums_[group][panel];
  }

 private:
  DEVICE Eight LoadX(const MatMulParams& params, int group, int col) const {
    return LoadEight(params, first_row_ + group * kGroupRows + lane_ / 4,
                     col + lane_ % 4 * 8);
  }

  DEVICE void AddFloats(
      const MatMulParams& params, int col,
      const StagePart<Shape::kDtype> (&parts)[Shape::kPanels]) {
    decltype(Pairs(parts[0], 0)) weights[Shape::kPanels];
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      weights[panel] = Pairs(parts[panel], 0);
    }
#pragma unroll
    for (int group = 0; group < Shape::kGroups; ++group) {
      const SplitEight x = Split(LoadX(params, group, col));
#pragma unroll
      for (int panel = 0; panel < Shape::kPanels; ++panel) {
        Multiply(weights[panel], x, sums_[group][panel]);
      }
    }
  }

  // A block's products with integers have a sum of their own, for its scale.
  DEVICE void AddQuantized(
      const MatMulParams& params, int col, int block,
      const StagePart<Shape::kDtype> (&parts)[Shape::kPanels]) {
    constexpr bool kHasMin = Shape::kDtype == ElementType::kQ4_1;
    WeightPairs weights[Shape::kPanels];
    float2 scales[Shape::kPanels];
    float2 minima[Shape::kPanels];
    const int owner = lane_ / 4 * 4 + block;  // of the block's scales
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      weights[panel] = Pairs(parts[panel], block);
      scales[panel] = ShuffleHalves(parts[panel].scales[0], owner);
      if constexpr (kHasMin) {
        minima[panel] = ShuffleHalves(parts[panel].scales[1], owner);
      }
    }
#pragma unroll
    for (int group = 0; group < Shape::kGroups; ++group) {
      const Eight x = LoadX(params, group, col);
      float2 x_sum{};
      if constexpr (kHasMin) x_sum = SumColumns(x, lane_);
      const SplitEight split = Split(x);
#pragma unroll
      for (int panel = 0; panel < Shape::kPanels; ++panel) {
        float product[4] = {};
        Multiply(weights[panel], split, product);
        float(&sums)[4] = sums_[group][panel];
        sums[0] = fmaf(scales[panel].x, product[0], sums[0]);
        sums[1] = fmaf(scales[panel].x, product[1], sums[1]);
        sums[2] = fmaf(scales[panel].y, product[2], sums[2]);
        sums[3] = fmaf(scales[panel].y, product[3], sums[3]);
        if constexpr (kHasMin) {
          sums[0] = fmaf(minima[panel].x, x_sum.x, sums[0]);
          sums[1] = fmaf(minima[panel].x, x_sum.y, sums[1]);
          sums[2] = fmaf(minima[panel].y, x_sum.x, sums[2]);
          sums[3] = fmaf(minima[panel].y, x_sum.y, sums[3]);
        }
      }
    }
  }

  int first_row_;
  int lane_;
  float sums_[Shape::kGroups][Shape::kPanels][4] = {};
};

// Stores sum + bias, or adds it.
DEVICE void StoreSum(const MatMulParams& params, int row, int64_t output,
                     float sum) {
  if (row >= params.rows || output >= params.layout.rows) return;
  if (params.bias != nullptr) sum += params.bias[output];
  float* to = params.out + row * params.layout.rows + output;
  *to = params.add ? *to + sum : sum;
}

// Adds up the sums of all warps and stores them. shared: Shape::kSharedBytes
template <class Shape>
DEVICE void JoinWarps(const MatMulParams& params, const WarpTile<Shape>& tile,
                      int first_row, int64_t first_output, float* shared) {
  constexpr int kSums = Shape::kOutputs * kGroupRows;  // of a warp
  const auto thread = static_cast<int>(threadIdx.x);
  float* mine = shared + thread / 32 * kSums + thread % 32;
#pragma unroll
  for (int group = 0; group < Shape::kGroups; ++group) {
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        mine[(panel * 4 + i) * 32] = tile.sums(panel, group)[i];
      }
    }
    __syncthreads();
#pragma unroll
    for (int begin = 0; begin < kSums; begin += kMatMulThreads) {
      const int output = (begin + thread) % Shape::kOutputs;
      const int row = (begin + thread) / Shape::kOutputs;  // of the group
      const int lane = output % 8 * 4 + row / 2;
      const float* from = shared + (output / 8 * 2 + row % 2) * 32 + lane;
      float sum = from[0];
#pragma unroll
      for (int warp = 1; warp < kMatMulWarps; ++warp) {
        sum += from[warp * kSums];
      }
      StoreSum(params, first_row + group * kGroupRows + row,
               first_output + output, sum);
    }
    __syncthreads();
  }
}

// Grid: for each kPanels of weights, blocks for all rows of x: neighbours, so
// that weights which one of them has loaded are in the L2 cache for the others.
template <class Shape>
__global__ void __launch_bounds__(kMatMulThreads, Shape::kMinBlocks)
    MatMulPanels(const __grid_constant__ MatMulParams params) {
  HEADCOUNT_SHARED(shared);
  using Part = StagePart<Shape::kDtype>;
  constexpr int kRows = Shape::kGroups * kGroupRows;
  const auto thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int lane = thread % 32;
  const PackedLayout layout{.dtype = Shape::kDtype,
                            .rows = params.layout.rows,
                            .cols = params.layout.cols};
  const int row_blocks = (params.rows + kRows - 1) / kRows;
  const auto block = static_cast<int>(blockIdx.x);
  const int first_row = block % row_blocks * kRows;
  const int64_t first_panel =
      static_cast<int64_t>(block / row_blocks) * Shape::kPanels;

  // Beyond the last panel, the last one again: nobody stores its sums.
  const std::byte* panels[Shape::kPanels];
#pragma unroll
  for (int i = 0; i < Shape::kPanels; ++i) {
    const int64_t panel = first_panel + i;
    panels[i] = params.weights +
                (panel < layout.panels() ? panel : layout.panels() - 1) *
                    layout.panel_bytes();
  }
  const auto load = [&](int stage, Part(&parts)[Shape::kPanels]) {
    const int64_t offset =
        static_cast<int64_t>(stage) * StageBytes(Shape::kDtype);
#pragma unroll
    for (int i = 0; i < Shape::kPanels; ++i) {
      LoadStage(panels[i] + offset, lane, &parts[i]);
    }
  };

  WarpTile<Shape> tile(first_row, lane);
  const auto stages = static_cast<int>(layout.stages());
  Part parts[Shape::kPanels];
  // Weights do not wait for the kernel in front of this one.
  if (Shape::kAhead && warp < stages) load(warp, parts);
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  for (int stage = warp; stage < stages; stage += kMatMulWarps) {
    if constexpr (Shape::kAhead) {
      Part next[Shape::kPanels];
      if (stage + kMatMulWarps < stages) load(stage + kMatMulWarps, next);
      tile.Add(params, stage, parts);
#pragma unroll
      for (int i = 0; i < Shape::kPanels; ++i) parts[i] = next[i];
    } else {
      load(stage, parts);
      tile.Add(params, stage, parts);
    }
  }
  JoinWarps(params, tile, first_row, first_panel * kPanelRows,
            reinterpret_cast<float*>(shared));
}

// --- Weights in float32 -----------------------------------------------------

inline constexpr int kFloatPanels = kMatMulThreads / (8 * kPanelRows);

// Eight threads share the columns of an output, four at a time, for eight rows
// of x. Grid: as above, for each kFloatPanels and eight rows.
__global__ void __launch_bounds__(kMatMulThreads)
    MatMulFloats(const __grid_constant__ MatMulParams params) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int row_blocks = (params.rows + kGroupRows - 1) / kGroupRows;
  const auto block = static_cast<int>(blockIdx.x);
  const int first_row = block % row_blocks * kGroupRows;
  const int64_t output =
      static_cast<int64_t>(block / row_blocks) * kFloatPanels * kPanelRows +
      thread / 8;
  const PackedLayout& layout = params.layout;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  float sums[kGroupRows] = {};
  const auto cols = static_cast<int>(layout.cols);
  if (output < layout.panels() * kPanelRows) {
    const std::byte* weights =
        params.weights + output / kPanelRows * layout.panel_bytes() +
        output % kPanelRows * kBlockCols * static_cast<int>(sizeof(float));
    for (int col = thread % 8 * 4; col < cols; col += kBlockCols) {
      const ptx::Float4 w = ptx::LoadGlobalFloat4(
          reinterpret_cast<const float*>(
              weights + col / kBlockCols *
                            static_cast<int64_t>(StageBytes(layout.dtype))) +
          col % kBlockCols);
#pragma unroll
      for (int row = 0; row < kGroupRows; ++row) {
        if (first_row + row >= params.rows) continue;
        const float* x =
            params.x + static_cast<int64_t>(first_row + row) * cols + col;
        sums[row] += w.x * x[0];
        if (col + 1 < cols) sums[row] += w.y * x[1];
        if (col + 2 < cols) sums[row] += w.z * x[2];
        if (col + 3 < cols) sums[row] += w.w * x[3];
      }
    }
  }
#pragma unroll
  for (int row = 0; row < kGroupRows; ++row) {
    float sum = sums[row];
#pragma unroll
    for (int x = 1; x < 8; x *= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, x);
    if (thread % 8 == row) StoreSum(params, first_row + row, output, sum);
  }
}

}  // namespace headcount::cuda
