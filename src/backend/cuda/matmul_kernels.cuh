// Products of a few or many rows of x with packed weights, on tensor cores; and
// with weights in float32, without them.
//
// A block has a few panels of weights and 8 to 32 rows of x. Its warps share
// the columns: warp i takes stages i, i + 8, ... of all of the panels, from
// memory straight into the registers that tensor cores want them in, so that a
// weight is loaded once for all rows of x and nobody waits for others before
// the end. There the sums of the warps are added up, in their order.
#pragma once

#include "backend/cuda/matmul_operands.cuh"

namespace headcount::cuda {

static_assert(kMatMulWarps == kSumClasses);

// Panels of weights and groups of rows of x of a block.
template <ElementType kType, int kPanelCount, int kGroupCount>
struct MatMulShape {
  static constexpr ElementType kDtype = kType;
  static constexpr int kPanels = kPanelCount;
  static constexpr int kGroups = kGroupCount;
  static constexpr int kOutputs = kPanels * kPanelRows;  // of a row of x
  static constexpr int kBlocks = StageCols(kDtype) / kBlockCols;  // of a stage
  static constexpr bool kQuantized = kBlocks > 1;
  static constexpr bool kHasMin = kDtype == ElementType::kQ4_1;
  // Up to 16 rows, splitting them in every block costs less than a launch
  // before this one, and what is loaded of x is little beside the weights.
  static constexpr bool kIsSplit = kGroups > 2;
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

// The sums of a warp.
template <class Shape>
class WarpTile {
 public:
  DEVICE WarpTile(int first_row, int lane)
      : first_row_(first_row), lane_(lane) {}

  // Adds the products with stage `stage` of the panels, and uses up `parts`.
  DEVICE void Add(const MatMulParams& params, int stage,
                  StagePart<Shape::kDtype> (&parts)[Shape::kPanels]) {
    if constexpr (Shape::kQuantized) {
      // Where x is only loaded, all blocks at once would be, into registers.
#pragma unroll(Shape::kIsSplit ? 1 : Shape::kBlocks)
      for (int block = 0; block < Shape::kBlocks; ++block) {
        AddQuantized(params, stage * Shape::kBlocks, block, parts);
#pragma unroll
        for (int i = 0; i < Shape::kPanels; ++i) NextBlock(&parts[i]);
      }
    } else {
      AddFloats(params, stage, parts);
    }
  }

  DEVICE const float (&sums(int panel, int group) const)[4] {
    return sums_[group][panel];
  }

 private:
  // What a lane has of a block of 32 columns of a group of rows.
  struct BlockOfX {
    SplitEight split;
    float2 sums;  // if there is a minimum
  };

  DEVICE BlockOfX LoadX(const MatMulParams& params, int group,
                        int block) const {
    BlockOfX x{};
    if constexpr (Shape::kIsSplit) {
      const std::byte* from =
          params.split + SplitOffset<Shape::kDtype, int>(
                             params, first_row_ / kGroupRows + group, block);
      ptx::LoadGlobal16(from + lane_ * 16, x.split.high);
      ptx::LoadGlobal16(from + kSplitPartBytes + lane_ * 16, x.split.low);
      if constexpr (Shape::kHasMin) {
        x.sums =
            reinterpret_cast<const float2*>(from + kSplitSumsOffset)[lane_ % 4];
      }
    } else {
      const Eight eight =
          LoadEight(params, first_row_ + group * kGroupRows + lane_ / 4,
                    block * kBlockCols + lane_ % 4 * 8);
      if constexpr (Shape::kHasMin) x.sums = SumColumnsOfPair(eight, lane_);
      x.split = Split(eight);
    }
    return x;
  }

  DEVICE void AddFloats(
      const MatMulParams& params, int block,
      const StagePart<Shape::kDtype> (&parts)[Shape::kPanels]) {
    decltype(Pairs(parts[0])) weights[Shape::kPanels];
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      weights[panel] = Pairs(parts[panel]);
    }
#pragma unroll
    for (int group = 0; group < Shape::kGroups; ++group) {
      const BlockOfX x = LoadX(params, group, block);
#pragma unroll
      for (int panel = 0; panel < Shape::kPanels; ++panel) {
        Multiply(weights[panel], x.split, sums_[group][panel]);
      }
    }
  }

  // A block's products with integers have a sum of their own, for its scale.
  DEVICE void AddQuantized(
      const MatMulParams& params, int first_block, int block,
      const StagePart<Shape::kDtype> (&parts)[Shape::kPanels]) {
    constexpr bool kHasMin = Shape::kHasMin;
    WeightPairs weights[Shape::kPanels];
    float2 scales[Shape::kPanels];
    float2 minima[Shape::kPanels];
    const int owner = lane_ / 4 * 4 + block;  // of the block's scales
#pragma unroll
    for (int panel = 0; panel < Shape::kPanels; ++panel) {
      weights[panel] = Pairs(parts[panel]);
      scales[panel] =
          Halves(__shfl_sync(0xFFFFFFFFu, parts[panel].scales[0], owner));
      if constexpr (kHasMin) {
        minima[panel] =
            Halves(__shfl_sync(0xFFFFFFFFu, parts[panel].scales[1], owner));
      }
    }
#pragma unroll
    for (int group = 0; group < Shape::kGroups; ++group) {
      // Or all groups would be loaded at once, into registers that minima need.
      if constexpr (Shape::kIsSplit && kHasMin) __syncwarp();
      const BlockOfX x = LoadX(params, group, first_block + block);
#pragma unroll
      for (int panel = 0; panel < Shape::kPanels; ++panel) {
        float product[4] = {};
        Multiply(weights[panel], x.split, product);
        AddScaled<kHasMin>(product, scales[panel], minima[panel], x.sums,
                           sums_[group][panel]);
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
