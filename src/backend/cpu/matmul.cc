// A tile is R rows of x times C column pairs of W. A pair is two vectors of
// outputs, one from each half of a panel; the tile's 2 R C accumulators stay in
// registers while the columns of W go by. Columns are cut into blocks: a tile's
// block of x stays in the first-level cache while the panels of a task pass
// over it, and a task's block of W in the second-level cache while the rows do.
// So a step reads each weight from memory once, whatever its number of rows.
#include "backend/cpu/matmul.h"

#include <algorithm>
#include <type_traits>

#include "backend/cpu/amx_matmul.h"
#include "backend/cpu/matmul_task.h"
#include "backend/cpu/quantized_matmul.h"
#include "hwy/cache_control.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matmul.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/matmul-inl.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

constexpr int64_t kPanelWidth = PackedMatrix::kPanelRows;
constexpr int64_t kHalfPanel = kPanelWidth / 2;
constexpr int64_t kStep = static_cast<int64_t>(kLanes);
constexpr int64_t kPairsPerPanel = kHalfPanel / kStep;

// Columns of a block, and the distance between its rows of x: a little more, so
// that they do not compete for the same cache sets.
constexpr int64_t kBlockCols = 512;
constexpr int64_t kBlockStride = kBlockCols + 16;

// Columns between the weights in use and those being fetched from memory: the
// processor's own prefetching ends with every page.
constexpr int64_t kPrefetchCols = 32;

// Accumulators 2 R C: at most 24 of 32 registers, or 12 of 16.
constexpr int kMaxTileRows = kManyRegisters ? 12 : 6;
constexpr int TilePairs(int rows) {
  if (kManyRegisters) return rows <= 3 ? 4 : rows <= 6 ? 2 : 1;
  return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}

// One column of one pair: lanes [i, i + kLanes) of both halves of the panel.
struct Pair {
  VF32 low;
  VF32 high;
};

template <class T>
HWY_INLINE Pair LoadPair(const T* from) {
  return {LoadFloats(F32(), from), LoadFloats(F32(), from + kHalfPanel)};
}

HWY_INLINE Pair LoadPair(const hwy::bfloat16_t* from) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  const auto words = hn::LoadU(du, reinterpret_cast<const uint32_t*>(from));
  return {hn::BitCast(d, hn::ShiftLeft<16>(words)),
          hn::BitCast(d, hn::And(words, hn::Set(du, 0xFFFF0000u)))};
}

template <class T>
constexpr int64_t PairOffset(int64_t pair) {
  constexpr bool kInterleaved = std::is_same_v<T, hwy::bfloat16_t>;
  return pair * kStep * (kInterleaved ? 2 : 1);
}

// The part of a multiplication that a tile computes.
struct Tile {
  int64_t row = 0;        // first row
  int64_t pair = 0;       // first pair, counted over the whole matrix
  int64_t col_begin = 0;  // columns of the block
  int64_t col_end = 0;
  const float* x = nullptr;  // [R][kBlockStride], from col_begin
  float* sums = nullptr;     // [C][R][2][kLanes], of all blocks so far
};

// Adds the products of the block's columns to the tile's sums. GCC keeps an
// array in registers only where the loops over it are unrolled early.
template <class T, int R, int C>
HWY_NOINLINE void ComputeTile(const MatMulOperands& operands,
                              const Tile& tile) {
  const F32 d;
  const T* w[C];
  for (int c = 0; c < C; ++c) {
    const int64_t pair = tile.pair + c;
    w[c] =
        reinterpret_cast<const T*>(operands.w->panel(pair / kPairsPerPanel)) +
        PairOffset<T>(pair % kPairsPerPanel) + tile.col_begin * kPanelWidth;
  }
  Pair sum[C][R];
#pragma GCC unroll 16
  for (int c = 0; c < C; ++c) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const float* from = tile.sums + (c * R + r) * 2 * kStep;
      sum[c][r] = {hn::Load(d, from), hn::Load(d, from + kStep)};
    }
  }
  const float* HWY_RESTRICT x = tile.x;
  const int64_t cols = tile.col_end - tile.col_begin;
  for (int64_t k = 0; k < cols; ++k) {
    Pair weights[C];
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
      hwy::Prefetch(w[c] + (k + kPrefetchCols) * kPanelWidth);
      weights[c] = LoadPair(w[c] + k * kPanelWidth);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const VF32 value = hn::Set(d, x[r * kBlockStride + k]);
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) {
        sum[c][r].low = hn::MulAdd(weights[c].low, value, sum[c][r].low);
        sum[c][r].high = hn::MulAdd(weights[c].high, value, sum[c][r].high);
      }
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < C; ++c) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      float* to = tile.sums + (c * R + r) * 2 * kStep;
      hn::Store(sum[c][r].low, d, to);
      hn::Store(sum[c][r].high, d, to + kStep);
    }
  }
}

// Moves the sums of R rows and C pairs to the output.
void FinishTile(const MatMulOperands& operands, const Tile& tile, int rows,
                int pairs) {
  const float* sum = tile.sums;
  for (int64_t pair = tile.pair; pair < tile.pair + pairs; ++pair) {
    const int64_t col =
        pair / kPairsPerPanel * kPanelWidth + pair % kPairsPerPanel * kStep;
    for (int64_t row = tile.row; row < tile.row + rows; ++row) {
      StoreOutput(operands, row, col, sum);
      StoreOutput(operands, row, col + kHalfPanel, sum + kStep);
      sum += 2 * kStep;
    }
  }
}

template <class T, int R, int C>
HWY_INLINE void RunTile(const MatMulOperands& operands, Tile* tile) {
  if (tile->col_begin == 0) std::fill_n(tile->sums, R * C * 2 * kStep, 0.0f);
  ComputeTile<T, R, C>(operands, *tile);
  if (tile->col_end == operands.w->cols()) FinishTile(operands, *tile, R, C);
  tile->pair += C;
  tile->sums += R * C * 2 * kStep;
}

// R rows times all pairs up to `pair_end`.
template <class T, int R>
void ComputePairs(const MatMulOperands& operands, Tile tile, int64_t pair_end) {
  constexpr int kPairs = TilePairs(R);
  while (tile.pair + kPairs <= pair_end) RunTile<T, R, kPairs>(operands, &tile);
  while (tile.pair < pair_end) RunTile<T, R, 1>(operands, &tile);
}

template <class T, int R = kMaxTileRows>
HWY_INLINE void ComputePairs(int64_t rows, const MatMulOperands& operands,
                             const Tile& tile, int64_t pair_end) {
  if (rows == R) return ComputePairs<T, R>(operands, tile, pair_end);
  if constexpr (R > 1) ComputePairs<T, R - 1>(rows, operands, tile, pair_end);
}

template <class T>
void Compute(const MatMulOperands& operands, const MatMulTask& task) {
  HWY_ALIGN float sums[kTaskRows * kTaskPanels * kPanelWidth];
  HWY_ALIGN float x[kMaxTileRows * kBlockStride];
  const int64_t cols = operands.w->cols();
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t panels = task.panel_end - task.panel_begin;
  // Tiles as equal as can be: a small one costs as much as a large one.
  const int64_t tiles = (rows + kMaxTileRows - 1) / kMaxTileRows;
  for (int64_t k = 0; k < cols; k += kBlockCols) {
    Tile tile;
    tile.pair = task.panel_begin * kPairsPerPanel;
    tile.col_begin = k;
    tile.col_end = std::min(k + kBlockCols, cols);
    tile.x = x;
    for (int64_t i = 0; i < tiles; ++i) {
      tile.row = task.row_begin + rows * i / tiles;
      tile.sums = sums + (tile.row - task.row_begin) * panels * kPanelWidth;
      const int64_t next = task.row_begin + rows * (i + 1) / tiles;
      for (int64_t row = tile.row; row < next; ++row) {
        std::copy_n(operands.x + row * cols + k, tile.col_end - k,
                    x + (row - tile.row) * kBlockStride);
      }
      ComputePairs<T>(next - tile.row, operands, tile,
                      task.panel_end * kPairsPerPanel);
    }
  }
}

void MatMulTargetTask(const MatMulOperands& operands, const MatMulTask& task) {
  switch (operands.w->dtype()) {
    case ElementType::kF32:
      return Compute<float>(operands, task);
    case ElementType::kF16:
      return Compute<hwy::float16_t>(operands, task);
    case ElementType::kBf16:
      return Compute<hwy::bfloat16_t>(operands, task);
    default:
      return;  // not here: see MatMul
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {
namespace {

HWY_EXPORT(MatMulTargetTask);

// Multiply-adds below which a second thread costs more than it brings.
constexpr int64_t kMinParallelWork = int64_t{1} << 17;

// Rows below which a task would read weights for too little.
constexpr int64_t kMinTaskRows = 24;

// Elements of x that a task quantises: some microseconds, worth waking a thread
// for.
constexpr int64_t kQuantizeElements = 16384;

int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

void QuantizeRows(const MatMulOperands& operands, bool amx,
                  MatMulWorkspace* workspace, ThreadPool* pool) {
  const int64_t rows = operands.rows;
  const int64_t cols = operands.w->cols();
  const int bytes = operands.w->input_bytes();
  const int64_t blocks = DivideUp(cols, kQuantizedCols);
  const int64_t row_blocks = bytes * blocks;
  const auto size = static_cast<size_t>(rows * row_blocks);
  if (workspace->x.size() < size) workspace->x.resize(size);
  const auto amx_size =
      static_cast<size_t>(amx ? DivideUp(rows, kAmxRows) * row_blocks : 0);
  if (workspace->amx_x.size() < amx_size) workspace->amx_x.resize(amx_size);
  int64_t step = DivideUp(kQuantizeElements, cols);
  if (amx) step = DivideUp(step, kAmxRows) * kAmxRows;
  pool->Run(DivideUp(rows, step), [&](int64_t task, int /*worker*/) {
    const int64_t end = std::min((task + 1) * step, rows);
    for (int64_t row = task * step; row < end; ++row) {
      QuantizeRow(operands.x + row * cols, cols, bytes,
                  workspace->x.data() + row * row_blocks);
    }
    if (!amx) return;
    for (int64_t row = task * step; row < end; row += kAmxRows) {
      PackAmxRows(workspace->x.data() + row * row_blocks,
                  std::min(kAmxRows, end - row), bytes, blocks,
                  workspace->amx_x.data() + row / kAmxRows * row_blocks);
    }
  });
}

}  // namespace

void MatMul(const MatMulOperands& operands, MatMulWorkspace* workspace,
            ThreadPool* pool) {
  const int64_t rows = operands.rows;
  const int64_t panels = operands.w->panels();
  if (rows == 0 || panels == 0) return;
  const bool quantized = IsQuantized(operands.w->dtype());
  const bool amx = workspace->amx && AmxIsBetter(*operands.w, rows);
  if (quantized) QuantizeRows(operands, amx, workspace, pool);
  const int64_t work = rows * operands.w->rows() * operands.w->cols();
  const bool parallel = pool->threads() > 1 && work >= kMinParallelWork;
  // Enough tasks that the last ones even out: by rows as long as these are
  // many, since panels that go together share the loads of x.
  const int64_t wanted = parallel ? pool->threads() * int64_t{4} : 1;
  const int64_t most_row_tasks = DivideUp(rows, kMinTaskRows);
  const int64_t panel_step =
      std::clamp<int64_t>(panels * most_row_tasks / wanted, 1, kTaskPanels);
  const int64_t panel_tasks = DivideUp(panels, panel_step);
  const int64_t row_tasks = std::clamp(
      DivideUp(wanted, panel_tasks),
      DivideUp(rows, amx ? kAmxTaskRows : kTaskRows), most_row_tasks);
  const int64_t unit = amx ? kAmxRows : 1;  // rows that stay together
  const int64_t units = DivideUp(rows, unit);
  const auto run = [&](int64_t index, int /*worker*/) {
    const int64_t panel = index / row_tasks * panel_step;
    const int64_t part = index % row_tasks;
    const MatMulTask task{
        .panel_begin = panel,
        .panel_end = std::min(panel + panel_step, panels),
        .row_begin = units * part / row_tasks * unit,
        .row_end = std::min(units * (part + 1) / row_tasks * unit, rows)};
    if (amx) {
      AmxMatMulTask(operands, workspace->amx_x.data(), task);
    } else if (quantized) {
      QuantizedMatMulTask(operands, workspace->x.data(), task);
    } else {
      HWY_DYNAMIC_DISPATCH(MatMulTargetTask)(operands, task);
    }
  };
  const int64_t tasks = panel_tasks * row_tasks;
  if (parallel) {
    pool->Run(tasks, run);
  } else {
    for (int64_t task = 0; task < tasks; ++task) run(task, 0);
  }
}

}  // namespace headcount
#endif  // HWY_ONCE
