// Products of many rows of x with packed weights, on tensor cores.
//
// A block has a tile of outputs and rows of x. It goes through their columns in
// steps: weights as they lie in memory, and x as SplitRows left it, are copied
// to shared memory a few steps ahead (cp.async), where each of 2 x 4 warps
// finds the fragments of its part of the tile in the order of its lanes.
//
// A sum has the order that it has in MatMulPanels, where warp i takes stages
// i, i + 8, ... and the sums of the warps are added up: here all warps take
// stages 0, 8, 16, ..., then 1, 9, ..., and at the end of each such class add
// its sums to totals. Both are in registers.
//
// Arithmetic, not measured, of bf16 and tiles of 128 x 128: 32 columns are
// 8 KiB of weights and 16 KiB of x from the L2 cache for 512 mma, 1,024 clocks
// at 1,024 multiply-adds a clock. That is 24 bytes a clock; tiles of 64 x 64
// need 48, and of 128 outputs and 64 rows 32, or 25 and 22 with weights of 8
// and 4 bits. Of shared memory, at 128 bytes a clock, copies take 192 clocks
// and warps, which read 8 KiB each, 512.
#pragma once

#include "backend/cuda/matmul_operands.cuh"

namespace headcount::cuda {

// Panels of weights and groups of rows of x of a tile.
template <ElementType kType, int kPanelCount, int kGroupCount>
struct TileShape {
  static constexpr ElementType kDtype = kType;
  static constexpr int kPanels = kPanelCount;
  static constexpr int kGroups = kGroupCount;
  static constexpr int kOutputs = kPanels * kPanelRows;
  static constexpr int kRows = kGroups * kGroupRows;
  static constexpr bool kQuantized = StageCols(kDtype) > kBlockCols;
  static constexpr bool kHasMin = kDtype == ElementType::kQ4_1;

  // Of the tile's outputs and of its rows of x. Integers become bf16 in every
  // warp that needs them: so that these are few, a warp has more rows.
  static constexpr int kOutputWarps = kQuantized && kPanels == 8 ? 4 : 2;
  static constexpr int kRowWarps = kMatMulWarps / kOutputWarps;
  static constexpr int kWarpPanels = kPanels / kOutputWarps;
  static constexpr int kWarpGroups = kGroups / kRowWarps;

  // Blocks of 32 columns of a step, and steps of a stage.
  static constexpr int kBlocks = kQuantized ? 2 : 1;
  static constexpr int kSteps = StageCols(kDtype) / kBlockCols / kBlocks;

  // A step in shared memory: its part of a stage of each panel, scales last;
  // then its blocks of each group.
  static constexpr int kPanelBytes = StageBytes(kDtype) / kSteps;
  static constexpr int kGroupBytes = kBlocks * SplitBlockBytes(kDtype);
  static constexpr int kXOffset = kPanels * kPanelBytes;
  static constexpr int kStepBytes = kXOffset + kGroups * kGroupBytes;
  // Of steps, one of which is multiplied while copies fill the others. With few
  // rows it is memory that a tile waits for: 24 KiB of weights (8 bits: 26, 4
  // bits: 15) are on their way to a multiprocessor that has room for one of the
  // large tiles or two small ones.
  static constexpr int kBuffers = 4;
  static constexpr int kSharedBytes = kBuffers * kStepBytes;
  static_assert(kSharedBytes <= 99 << 10);  // what sm_86 and sm_89 have

  // On a multiprocessor, as registers allow.
  static constexpr int kMinBlocks = kWarpPanels * kWarpGroups <= 4 ? 2 : 1;
};

// Which tile a block has. Tiles of kBandTiles rows of them come one after the
// other, then those of the next outputs: of an H100, 132 blocks at a time have
// 8 x 16.5 tiles, which for 32 columns are 260 KiB of different weights and x,
// read 12 times on average. The x of a band stays in the L2 cache (16 MiB of
// 4,096 columns); weights come from memory once for each band.
inline constexpr int kBandTiles = 8;

template <class Shape>
struct Tile {
  int first_row;
  int first_output;

  DEVICE explicit Tile(const MatMulParams& params) {
    const auto block = static_cast<int>(blockIdx.x);
    const int row_tiles = (params.rows + Shape::kRows - 1) / Shape::kRows;
    const auto output_tiles = static_cast<int>(
        (params.layout.rows + Shape::kOutputs - 1) / Shape::kOutputs);
    const int band = block / (kBandTiles * output_tiles) * kBandTiles;
    const int in_band = block - band * output_tiles;
    const int left = row_tiles - band;
    const int height = left < kBandTiles ? left : kBandTiles;
    first_row = (band + in_band % height) * Shape::kRows;
    first_output = in_band / height * Shape::kOutputs;
  }
};

// Brings the steps of a tile to shared memory, in the order of the sums. All
// threads call everything.
template <class Shape>
class TileSteps {
 public:
  DEVICE TileSteps(const MatMulParams& params, const Tile<Shape>& tile,
                   int stages, unsigned char* shared)
      : stages_(stages),
        warp_(static_cast<int>(threadIdx.x) / 32),
        lane_(static_cast<int>(threadIdx.x) % 32),
        shared_(shared) {
    // Beyond the last panel, the last one again: nobody stores its sums.
    const auto last = static_cast<int>(params.layout.panels()) - 1;
    const int panel = tile.first_output / kPanelRows + warp_;
    panel_ = params.weights +
             int64_t{panel < last ? panel : last} * stages * kStageBytes;
#pragma unroll
    for (int i = 0; i < kWarpGroups; ++i) {
      groups_[i] =
          params.split +
          SplitOffset<Shape::kDtype, int64_t>(
              params, tile.first_row / kGroupRows + i * kMatMulWarps + warp_,
              0);
    }
    for (int i = 1; i < Shape::kBuffers; ++i) Issue();
  }

  // Waits for the next step, which stays until the one after it is asked for.
  DEVICE const unsigned char* Next() {
    ptx::CpAsyncWait<Shape::kBuffers - 2>();
    __syncthreads();
    Issue();  // in the place of the step that all have left behind
    return shared_ + buffer_;
  }

 private:
  static constexpr int kChunkBytes = 16;
  static constexpr int kStageBytes = StageBytes(Shape::kDtype);
  // A warp copies a panel, or none, and groups warp, warp + 8, ...
  static constexpr int kWarpGroups = Shape::kGroups / kMatMulWarps;
  static_assert(Shape::kPanels <= kMatMulWarps);

  DEVICE void Issue() {
    if (stage_ < stages_) {
      unsigned char* to = shared_ + buffer_;
      if (Shape::kPanels == kMatMulWarps || warp_ < Shape::kPanels) {
        CopyPanel(to + warp_ * Shape::kPanelBytes);
      }
      CopyGroups(to + Shape::kXOffset + warp_ * Shape::kGroupBytes);
      if (++part_ == Shape::kSteps) {
        part_ = 0;
        NextStage();
      }
    }
    ptx::CpAsyncCommit();
    buffer_ += Shape::kStepBytes;
    if (buffer_ == Shape::kSharedBytes) buffer_ = 0;
  }

  DEVICE void NextStage() {
    stage_ += kSumClasses;
    if (stage_ < stages_) return;
    const int next_class = stage_ % kSumClasses + 1;
    stage_ = next_class < kSumClasses ? next_class : stages_;
  }

  // Calls copy(chunk) for the lane's chunks of `kBytes`.
  template <int kBytes, class Copy>
  DEVICE void ForChunks(Copy&& copy) const {
    constexpr int kChunks = kBytes / kChunkBytes;
#pragma unroll
    for (int begin = 0; begin < kChunks; begin += 32) {
      if (begin + 32 <= kChunks || begin + lane_ < kChunks) {
        copy(begin + lane_);
      }
    }
  }

  DEVICE void CopyPanel(unsigned char* to) const {
    const std::byte* stage = panel_ + int64_t{stage_} * kStageBytes;
    ForChunks<Shape::kPanelBytes>([&](int chunk) {
      int offset = chunk * kChunkBytes;
      if constexpr (Shape::kDtype == ElementType::kQ4_1) {
        offset = chunk < 32 ? FourBitOffset(2 * part_, chunk)
                            : FourBitScaleOffset(chunk - 32, 2 * part_);
      }
      ptx::CpAsync16(to + chunk * kChunkBytes, stage + offset);
    });
  }

  DEVICE void CopyGroups(unsigned char* to) const {
    const int64_t offset =
        int64_t{stage_ * Shape::kSteps + part_} * Shape::kGroupBytes;
#pragma unroll
    for (int i = 0; i < kWarpGroups; ++i) {
      ForChunks<Shape::kGroupBytes>([&](int chunk) {
        ptx::CpAsync16(
            to + i * kMatMulWarps * Shape::kGroupBytes + chunk * kChunkBytes,
            groups_[i] + offset + chunk * kChunkBytes);
      });
    }
  }

  int stages_;
  int warp_;
  int lane_;
  unsigned char* shared_;
  const std::byte* panel_;
  const std::byte* groups_[kWarpGroups];
  int stage_ = 0;  // of the step to be issued next
  int part_ = 0;   // which step of its stage that is
  // Where that goes; of all steps that are there, the one behind it is the
  // oldest.
  int buffer_ = 0;
};

// --- A step in shared memory ------------------------------------------------

// What a lane takes of block `block` of a panel's step, as the first block of a
// stage, with the scales of its own rows.
template <ElementType kDtype>
DEVICE StagePart<kDtype> LoadBlock(const unsigned char* panel, int lane,
                                   int block) {
  StagePart<kDtype> part{};
  if constexpr (kDtype == ElementType::kQ8_0) {
    ptx::LoadShared16(panel + EightBitOffset(block, lane), part.words[0]);
    part.scales[0] = *reinterpret_cast<const uint32_t*>(
        panel + EightBitScaleOffset(lane / 4, block));
  } else if constexpr (kDtype == ElementType::kQ4_1) {
    uint32_t words[4];
    ptx::LoadShared16(panel + FourBitOffset(0, lane), words);
    part.words[0][0] = block == 0 ? words[0] : words[2];
    part.words[0][1] = block == 0 ? words[1] : words[3];
    const uint2 pair = *reinterpret_cast<const uint2*>(
        panel + kStageWeightBytes / 2 + lane / 4 * 16 + block * 8);
    part.scales[0] = pair.x;
    part.scales[1] = pair.y;
  } else {
    ptx::LoadShared16(panel + lane * 16, part.words[0]);
    ptx::LoadShared16(panel + 512 + lane * 16, part.words[1]);
  }
  return part;
}

// Products of one of the parts of x with a block of 32 columns of weights. The
// groups take turns, so that no product waits for the one before.
template <bool kLow, int kGroups>
DEVICE void MultiplyPart(const WeightPairs& weights,
                         const SplitEight (&x)[kGroups],
                         float (&sums)[kGroups][4]) {
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t a[4] = {weights.pair[i][0], weights.pair[i][1],
                           weights.pair[i + 1][0], weights.pair[i + 1][1]};
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const uint32_t(&words)[4] = kLow ? x[group].low : x[group].high;
      const uint32_t b[2] = {words[i], words[i + 1]};
      ptx::MmaBf16(sums[group], a, b);
    }
  }
}

// The order is that of Multiply.
template <int kGroups>
DEVICE void MultiplyGroups(const WeightPairs& weights,
                           const SplitEight (&x)[kGroups],
                           float (&sums)[kGroups][4]) {
  MultiplyPart<true>(weights, x, sums);
  MultiplyPart<false>(weights, x, sums);
}
template <int kGroups>
DEVICE void MultiplyGroups(const SplitPairs& weights,
                           const SplitEight (&x)[kGroups],
                           float (&sums)[kGroups][4]) {
  MultiplyPart<false>(weights.low, x, sums);
  MultiplyGroups(weights.high, x, sums);
}

// A warp's part of a tile.
template <class Shape>
class TilePart {
 public:
  DEVICE explicit TilePart(int thread)
      : lane_(thread % 32),
        panel_(thread / 32 / Shape::kRowWarps * Shape::kWarpPanels),
        group_(thread / 32 % Shape::kRowWarps * Shape::kWarpGroups) {
#pragma unroll
    for (int panel = 0; panel < Shape::kWarpPanels; ++panel) {
#pragma unroll
      for (int group = 0; group < Shape::kWarpGroups; ++group) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums_[panel][group][i] = 0;
          totals_[panel][group][i] = -0.0f;  // + x is x, whatever its sign
        }
      }
    }
  }

  DEVICE void Add(const unsigned char* step) {
    const unsigned char* weights = step + panel_ * Shape::kPanelBytes;
    const unsigned char* x =
        step + Shape::kXOffset + group_ * Shape::kGroupBytes;
#pragma unroll 1
    for (int block = 0; block < Shape::kBlocks; ++block) {
      AddBlock(weights, x + block * SplitBlockBytes(Shape::kDtype), block);
    }
  }

  DEVICE void EndClass() {
#pragma unroll
    for (int panel = 0; panel < Shape::kWarpPanels; ++panel) {
#pragma unroll
      for (int group = 0; group < Shape::kWarpGroups; ++group) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          totals_[panel][group][i] += sums_[panel][group][i];
          sums_[panel][group][i] = 0;
        }
      }
    }
  }

  DEVICE void Store(const MatMulParams& params, const Tile<Shape>& tile) const {
#pragma unroll
    for (int panel = 0; panel < Shape::kWarpPanels; ++panel) {
      const int row = tile.first_row + group_ * kGroupRows + lane_ % 4 * 2;
      const int output =
          tile.first_output + (panel_ + panel) * kPanelRows + lane_ / 4;
      StorePanel(params, row, output, totals_[panel]);
    }
  }

 private:
  using PanelSums = float[Shape::kWarpGroups][4];

  // What memory holds comes first for all sums, or each would wait for it.
  DEVICE void StorePanel(const MatMulParams& params, int row, int output,
                         const PanelSums& sums) const {
    const auto for_each = [&](auto&& use) {
#pragma unroll
      for (int group = 0; group < Shape::kWarpGroups; ++group) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int x = row + group * kGroupRows + i % 2;
          const int64_t y = output + i / 2 * 8;
          if (x < params.rows && y < params.layout.rows) {
            use(group, i, x * params.layout.rows + y);
          }
        }
      }
    };
    float bias[2] = {};
    if (params.bias != nullptr) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int y = output + half * 8;
        if (y < params.layout.rows) bias[half] = params.bias[y];
      }
    }
    PanelSums before = {};
    if (params.add) {
      for_each([&](int group, int i, int64_t to) {
        before[group][i] = params.out[to];
      });
    }
    for_each([&](int group, int i, int64_t to) {
      float sum = sums[group][i];
      if (params.bias != nullptr) sum += bias[i / 2];
      params.out[to] = params.add ? before[group][i] + sum : sum;
    });
  }

  // weights: the step's of the warp's panels. x: the block's of its groups.
  DEVICE void AddBlock(const unsigned char* weights, const unsigned char* x,
                       int block) {
    SplitEight split[Shape::kWarpGroups];
#pragma unroll
    for (int group = 0; group < Shape::kWarpGroups; ++group) {
      const unsigned char* from = x + group * Shape::kGroupBytes;
      ptx::LoadShared16(from + lane_ * 16, split[group].high);
      ptx::LoadShared16(from + kSplitPartBytes + lane_ * 16, split[group].low);
    }
#pragma unroll
    for (int panel = 0; panel < Shape::kWarpPanels; ++panel) {
      const auto part = LoadBlock<Shape::kDtype>(
          weights + panel * Shape::kPanelBytes, lane_, block);
      if constexpr (Shape::kQuantized) {
        float products[Shape::kWarpGroups][4] = {};
        MultiplyGroups(Pairs(part), split, products);
#pragma unroll
        for (int group = 0; group < Shape::kWarpGroups; ++group) {
          float2 x_sums{};
          if constexpr (Shape::kHasMin) {
            x_sums = reinterpret_cast<const float2*>(
                x + group * Shape::kGroupBytes + kSplitSumsOffset)[lane_ % 4];
          }
          AddScaled<Shape::kHasMin>(products[group], Halves(part.scales[0]),
                                    Halves(part.scales[1]), x_sums,
                                    sums_[panel][group]);
        }
      } else {
        MultiplyGroups(Pairs(part), split, sums_[panel]);
      }
    }
  }

  int lane_;
  int panel_;  // first ones, of the tile
  int group_;
  float sums_[Shape::kWarpPanels][Shape::kWarpGroups][4];  // of a class
  float totals_[Shape::kWarpPanels][Shape::kWarpGroups][4];
};

// Grid: the tiles of all outputs and rows.
template <class Shape>
__global__ void __launch_bounds__(kMatMulThreads, Shape::kMinBlocks)
    MatMulTiles(const __grid_constant__ MatMulParams params) {
  HEADCOUNT_SHARED(shared);
  const auto thread = static_cast<int>(threadIdx.x);
  const Tile<Shape> tile(params);
  const auto stages =
      static_cast<int>((params.layout.cols + StageCols(Shape::kDtype) - 1) /
                       StageCols(Shape::kDtype));
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  TileSteps<Shape> steps(params, tile, stages, shared);
  TilePart<Shape> part(thread);
  for (int first = 0; first < kSumClasses; ++first) {
    for (int stage = first; stage < stages; stage += kSumClasses) {
#pragma unroll 1
      for (int step = 0; step < Shape::kSteps; ++step) part.Add(steps.Next());
    }
    part.EndClass();
  }
  part.Store(params, tile);
}

}  // namespace headcount::cuda
