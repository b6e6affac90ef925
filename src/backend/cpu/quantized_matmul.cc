// A tile is R rows of bytes of x times C vectors of outputs of one panel; a row
// of x with two bytes an element makes two rows. Integer dot products of a
// block of 32 columns stay in registers and are exact; then those of one row of
// x become one, which is scaled and joins the tile's float sums. Blocks come in
// groups, for the reasons given in matmul.cc: a tile's rows of x stay in the
// first-level cache while the panels of a task pass, and these in the
// second-level cache while the rows do.
// Products of bytes (VNNI) are what AVX3_DL has; other files do without.
#define HWY_WANT_AVX3_DL

#include "backend/cpu/quantized_matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "hwy/cache_control.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/quantized_matmul.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/matmul-inl.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using VI32 = hn::Vec<I32>;
using VU32 = hn::Vec<U32>;

constexpr int64_t kStep = static_cast<int64_t>(kLanes);
constexpr int kVectors = static_cast<int>(kQuantizedRows / kStep);

// The one piece that each target has its own of. Lanes hold four bytes, of w
// unsigned and of x signed. AddProducts adds the four products to a sum; Total
// makes an int32 of the sum in the end. Sums that are not wide are two of 16
// bits: exact for up to eight times four products of bytes of w below 16.
#if HWY_TARGET == HWY_AVX3_DL
constexpr bool kWideSums = true;
// _mm512_dpbusd_epi32, which the compiler refuses: Highway 1.0.3 asks it for
// avxvnni where avx512vnni is meant.
HWY_INLINE VI32 AddProducts(VI32 sum, VU32 w, VI32 x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
  return sum;
}
HWY_INLINE VI32 Total(VI32 sum) { return sum; }
#elif HWY_TARGET == HWY_AVX3
constexpr bool kWideSums = false;
HWY_INLINE VI32 AddProducts(VI32 sum, VU32 w, VI32 x) {
  return VI32{_mm512_add_epi16(sum.raw, _mm512_maddubs_epi16(w.raw, x.raw))};
}
HWY_INLINE VI32 Total(VI32 sum) {
  return VI32{_mm512_madd_epi16(sum.raw, _mm512_set1_epi16(1))};
}
#elif HWY_TARGET == HWY_AVX2
constexpr bool kWideSums = false;
HWY_INLINE VI32 AddProducts(VI32 sum, VU32 w, VI32 x) {
  return VI32{_mm256_add_epi16(sum.raw, _mm256_maddubs_epi16(w.raw, x.raw))};
}
HWY_INLINE VI32 Total(VI32 sum) {
  return VI32{_mm256_madd_epi16(sum.raw, _mm256_set1_epi16(1))};
}
#else
constexpr bool kWideSums = true;
template <int kByte>
HWY_INLINE VI32 Product(VU32 w, VI32 x) {
  const auto byte = hn::And(hn::ShiftRight<8 * kByte>(w), hn::Set(U32(), 255u));
  const auto factor = hn::ShiftRight<24>(hn::ShiftLeft<24 - 8 * kByte>(x));
  return hn::Mul(hn::BitCast(I32(), byte), factor);
}
HWY_INLINE VI32 AddProducts(VI32 sum, VU32 w, VI32 x) {
  const VI32 low = hn::Add(Product<0>(w, x), Product<1>(w, x));
  const VI32 high = hn::Add(Product<2>(w, x), Product<3>(w, x));
  return hn::Add(sum, hn::Add(low, high));
}
HWY_INLINE VI32 Total(VI32 sum) { return sum; }
#endif

// a * b + c, rounded once: where Highway's own is not fused, lane by lane.
HWY_INLINE VF32 FusedMulAdd(VF32 a, VF32 b, VF32 c) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  const F32 d;
  HWY_ALIGN float lanes[3][kLanes];
  hn::Store(a, d, lanes[0]);
  hn::Store(b, d, lanes[1]);
  hn::Store(c, d, lanes[2]);
  for (size_t i = 0; i < kLanes; ++i) {
    lanes[2][i] = std::fma(lanes[0][i], lanes[1][i], lanes[2][i]);
  }
  return hn::Load(d, lanes[2]);
#else
  return hn::MulAdd(a, b, c);
#endif
}

// Bytes of 8 bits meet narrow sums as two halves of 4, summed apart.
constexpr bool SumsHalves(int bits) { return bits == 8 && !kWideSums; }

// Blocks of a group.
constexpr int64_t kGroupBlocks = 32;

// Integer sums R C, or twice that: at most 16 of 32 registers, or 8 of 16.
constexpr int kMaxTileRows = kManyRegisters ? 8 : 4;
constexpr int TileVectors(int bits, int rows) {
  const int sums = (kManyRegisters ? 16 : 8) / (SumsHalves(bits) ? 2 : 1);
  const int most = rows == 1 ? 4 : 2;
  int vectors = 1;
  while (2 * vectors <= most && 2 * vectors * rows <= sums) vectors *= 2;
  return HWY_MIN(vectors, kVectors);
}

// Bytes between the weights in use and those being fetched from memory.
constexpr int64_t kPrefetchBytes = 2048;

// Blocks of a group in one panel, times some rows.
struct Tile {
  const std::byte* w = nullptr;        // the first block
  const ActivationBlock* x = nullptr;  // [R][x_stride]
  int64_t x_stride = 0;                // blocks of a row of bytes
  int64_t blocks = 0;
  int vector = 0;         // of the panel, the first of C
  float* sums = nullptr;  // [C][rows of x][kLanes], of all groups so far
};

HWY_INLINE VI32 FourBytes(const int8_t* from) {
  int32_t bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return hn::Set(I32(), bytes);
}

// The integer dot products of one block: low and high halves of bytes, or the
// whole sum in the first.
template <int kBits, int R, int C>
struct BlockSums {
  VI32 sum[C][R][SumsHalves(kBits) ? 2 : 1];
};

// One step: the bytes of C vectors, kQuantizedStepBytes of the panel. One row
// takes one vector after the other, which leaves the most registers for sums.
template <int kBits, int R, int C>
HWY_INLINE void AddStep(const std::byte* w, const ActivationBlock* x,
                        int64_t x_stride, int step,
                        BlockSums<kBits, R, C>* sums) {
  constexpr int kTogether = R == 1 ? 1 : C;
  const U32 du;
  const VU32 mask = hn::Set(du, 0x0F0F0F0Fu);
  const auto* from =
      reinterpret_cast<const uint32_t*>(w + step * kQuantizedStepBytes);
#pragma GCC unroll 16
  for (int vector = 0; vector < C; vector += kTogether) {
    VU32 low[kTogether];
    VU32 high[kTogether];
#pragma GCC unroll 16
    for (int c = 0; c < kTogether; ++c) {
      low[c] = hn::LoadU(du, from + (vector + c) * kStep);
      if constexpr (kBits == 4 || SumsHalves(kBits)) {
        high[c] = hn::And(hn::ShiftRight<4>(low[c]), mask);
        low[c] = hn::And(low[c], mask);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const int8_t* q = x[r * x_stride].q + (kBits == 4 ? 8 : 4) * step;
      const VI32 first = FourBytes(q);
#pragma GCC unroll 16
      for (int c = 0; c < kTogether; ++c) {
        VI32* sum = sums->sum[vector + c][r];
        sum[0] = AddProducts(sum[0], low[c], first);
        if constexpr (SumsHalves(kBits)) {
          sum[1] = AddProducts(sum[1], high[c], first);
        }
      }
      if constexpr (kBits == 4) {
        const VI32 second = FourBytes(q + 4);
#pragma GCC unroll 16
        for (int c = 0; c < kTogether; ++c) {
          VI32* sum = sums->sum[vector + c][r];
          sum[0] = AddProducts(sum[0], high[c], second);
        }
      }
    }
  }
}

template <int kBits>
HWY_INLINE VI32 WholeSum(const VI32* sum) {
  if constexpr (!SumsHalves(kBits)) return Total(sum[0]);
  return hn::Add(Total(sum[0]), hn::ShiftLeft<4>(Total(sum[1])));
}

// Of row r of bytes, and of the next if an element has two.
template <int kBits, int kBytes, int R>
HWY_INLINE VF32 Dot(const VI32 (&sum)[R][SumsHalves(kBits) ? 2 : 1], int r,
                    const ActivationBlock& x) {
  VI32 total = WholeSum<kBits>(sum[r]);
  if constexpr (kBytes == 2) {
    total = hn::Add(hn::ShiftLeft<8>(total), WholeSum<kBits>(sum[r + 1]));
  }
  if constexpr (kBits == 8) total = hn::Add(total, hn::Set(I32(), x.offset));
  return hn::ConvertTo(F32(), total);
}

// Adds the products of one block, scaled, to the tile's float sums.
template <int kBits, int kBytes, int R, int C>
HWY_INLINE void AddBlock(const BlockSums<kBits, R, C>& sums,
                         const hwy::float16_t* HWY_RESTRICT halves,
                         const ActivationBlock* HWY_RESTRICT x,
                         int64_t x_stride, float* HWY_RESTRICT to) {
  const F32 d;
#pragma GCC unroll 16
  for (int c = 0; c < C; ++c) {
    const VF32 scale = LoadFloats(d, halves + c * kStep);
#pragma GCC unroll 16
    for (int r = 0; r < R; r += kBytes) {
      const ActivationBlock& row = x[r * x_stride];
      VF32 total = hn::Load(d, to);
      if constexpr (kBits == 4) {
        const VF32 min = LoadFloats(d, halves + kQuantizedRows + c * kStep);
        total = FusedMulAdd(min, hn::Set(d, row.scaled_sum), total);
      }
      total = FusedMulAdd(Dot<kBits, kBytes>(sums.sum[c], r, row),
                          hn::Mul(scale, hn::Set(d, row.scale)), total);
      hn::Store(total, d, to);
      to += kStep;
    }
  }
}

// Adds the products of the tile's blocks to its sums. GCC keeps an array in
// registers only where the loops over it are unrolled early.
template <int kBits, int kBytes, int R, int C>
HWY_NOINLINE void ComputeTile(const Tile& tile) {
  const std::byte* w = tile.w;
  const ActivationBlock* HWY_RESTRICT x = tile.x;
  float* HWY_RESTRICT to = tile.sums;
  const int64_t x_stride = tile.x_stride;
  for (int64_t b = 0; b < tile.blocks; ++b) {
    BlockSums<kBits, R, C> sums;
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        for (VI32& sum : sums.sum[c][r]) sum = hn::Zero(I32());
      }
    }
    const std::byte* bytes =
        w + QuantizedHeaderBytes(kBits) + tile.vector * kStep * 4;
#pragma GCC unroll 8
    for (int step = 0; step < kBits; ++step) {
      hwy::Prefetch(bytes + step * kQuantizedStepBytes + kPrefetchBytes);
      if (C * kStep * 4 > 64) {
        hwy::Prefetch(bytes + step * kQuantizedStepBytes + kPrefetchBytes + 64);
      }
      AddStep<kBits, R, C>(bytes, x, x_stride, step, &sums);
    }
    AddBlock<kBits, kBytes, R, C>(
        sums, reinterpret_cast<const hwy::float16_t*>(w) + tile.vector * kStep,
        x, x_stride, to);
    w += QuantizedBlockBytes(kBits);
    ++x;
  }
}

// A group of blocks, for R rows of bytes.
struct Group {
  int64_t row = 0;  // of x
  int64_t begin = 0;
  int64_t end = 0;
  const ActivationBlock* x = nullptr;  // of the row, from block 0
  int64_t x_stride = 0;
  float* sums = nullptr;  // [panels][32 / kLanes / C][C][rows of x][kLanes]
};

// R rows of bytes times all panels of the task.
template <int kBits, int kBytes, int R>
void ComputePanels(const MatMulOperands& operands, const MatMulTask& task,
                   const Group& group) {
  constexpr int kTileVectors = TileVectors(kBits, R);
  constexpr int kRows = R / kBytes;
  Tile tile{.x = group.x + group.begin,
            .x_stride = group.x_stride,
            .blocks = group.end - group.begin,
            .sums = group.sums};
  for (int64_t panel = task.panel_begin; panel < task.panel_end; ++panel) {
    tile.w =
        operands.w->panel(panel) + group.begin * QuantizedBlockBytes(kBits);
    for (tile.vector = 0; tile.vector < kVectors; tile.vector += kTileVectors) {
      if (group.begin == 0) {
        std::fill_n(tile.sums, kTileVectors * kRows * kStep, 0.0f);
      }
      ComputeTile<kBits, kBytes, R, kTileVectors>(tile);
      if (group.end == group.x_stride) {
        const float* sum = tile.sums;
        for (int c = 0; c < kTileVectors; ++c) {
          const int64_t col =
              panel * kQuantizedRows + (tile.vector + c) * kStep;
          for (int r = 0; r < kRows; ++r) {
            StoreOutput(operands, group.row + r, col, sum);
            sum += kStep;
          }
        }
      }
      tile.sums += kTileVectors * kRows * kStep;
    }
  }
}

template <int kBits, int kBytes, int R = kMaxTileRows>
HWY_INLINE void ComputePanels(int64_t rows, const MatMulOperands& operands,
                              const MatMulTask& task, const Group& group) {
  if (rows * kBytes == R) {
    return ComputePanels<kBits, kBytes, R>(operands, task, group);
  }
  if constexpr (R > kBytes) {
    ComputePanels<kBits, kBytes, R - kBytes>(rows, operands, task, group);
  }
}

template <int kBits, int kBytes>
void Compute(const MatMulOperands& operands, const ActivationBlock* x,
             const MatMulTask& task) {
  HWY_ALIGN float sums[kTaskRows * kTaskPanels * kQuantizedRows];
  const int64_t blocks =
      (operands.w->cols() + kQuantizedCols - 1) / kQuantizedCols;
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t panels = task.panel_end - task.panel_begin;
  // Tiles as equal as can be: a small one costs as much as a large one.
  constexpr int64_t kTileRows = kMaxTileRows / kBytes;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  for (int64_t block = 0; block < blocks; block += kGroupBlocks) {
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t row = rows * i / tiles;
      const int64_t next = rows * (i + 1) / tiles;
      ComputePanels<kBits, kBytes>(
          next - row, operands, task,
          {.row = task.row_begin + row,
           .begin = block,
           .end = std::min(block + kGroupBlocks, blocks),
           .x = x + (task.row_begin + row) * kBytes * blocks,
           .x_stride = blocks,
           .sums = sums + row * panels * kQuantizedRows});
    }
  }
}

template <int kBits>
void Compute(const MatMulOperands& operands, const ActivationBlock* x,
             const MatMulTask& task) {
  if (operands.w->input_bytes() == 1) {
    Compute<kBits, 1>(operands, x, task);
  } else {
    Compute<kBits, 2>(operands, x, task);
  }
}

void TargetTask(const MatMulOperands& operands, const ActivationBlock* x,
                const MatMulTask& task) {
  if (operands.w->dtype() == ElementType::kQ4_1) {
    Compute<4>(operands, x, task);
  } else {
    Compute<8>(operands, x, task);
  }
}

// 32 values; `low` takes the second bytes. The bits of positive floats rise
// with them, infinity and NaN on top.
template <int kBytes>
HWY_INLINE void QuantizeBlock(const float* HWY_RESTRICT x,
                              ActivationBlock* HWY_RESTRICT out,
                              ActivationBlock* HWY_RESTRICT low) {
  constexpr float kLargest = kBytes == 2 ? 127 * 256 + 127 : 127;
  const F32 d;
  const I32 di;
  VI32 largest = hn::Zero(di);
  for (int64_t i = 0; i < kQuantizedCols; i += kStep) {
    const VI32 bits = hn::BitCast(di, hn::LoadU(d, x + i));
    largest = hn::Max(largest, hn::And(bits, hn::Set(di, 0x7FFFFFFF)));
  }
  const int32_t bits = hn::GetLane(hn::MaxOfLanes(di, largest));
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof(magnitude));
  *out = {};
  if constexpr (kBytes == 2) *low = {};
  if (magnitude < 0x1p-100f) return;
  if (!(magnitude < HUGE_VALF)) {
    out->scale = NAN;
    out->scaled_sum = NAN;
    return;
  }
  const VF32 inverse = hn::Set(d, kLargest / magnitude);
  VI32 sum = hn::Zero(di);
  for (int64_t i = 0; i < kQuantizedCols; i += kStep) {
    VI32 q = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse));
    sum = hn::Add(sum, q);
    const hn::Rebind<int8_t, F32> d8;
    if constexpr (kBytes == 2) {
      const VI32 high = hn::ShiftRight<8>(hn::Add(q, hn::Set(di, 128)));
      const VI32 rest = hn::Sub(q, hn::ShiftLeft<8>(high));
      hn::StoreU(hn::DemoteTo(d8, rest), d8, low->q + i);
      q = high;
    }
    hn::StoreU(hn::DemoteTo(d8, q), d8, out->q + i);
  }
  const int32_t total = hn::GetLane(hn::SumOfLanes(di, sum));
  out->scale = magnitude / kLargest;
  out->scaled_sum = out->scale * static_cast<float>(total);
  out->offset = -128 * total;
}

template <int kBytes>
void QuantizeRow(const float* x, int64_t cols, ActivationBlock* out) {
  const int64_t blocks = (cols + kQuantizedCols - 1) / kQuantizedCols;
  ActivationBlock* low = out + (kBytes - 1) * blocks;
  int64_t col = 0;
  for (; col + kQuantizedCols <= cols; col += kQuantizedCols) {
    QuantizeBlock<kBytes>(x + col, out++, low++);
  }
  if (col == cols) return;
  float last[kQuantizedCols] = {};
  std::copy(x + col, x + cols, last);
  QuantizeBlock<kBytes>(last, out, low);
}

void TargetQuantizeRow(const float* x, int64_t cols, int bytes,
                       ActivationBlock* out) {
  if (bytes == 1) {
    QuantizeRow<1>(x, cols, out);
  } else {
    QuantizeRow<2>(x, cols, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {
namespace {

HWY_EXPORT(TargetTask);
HWY_EXPORT(TargetQuantizeRow);

}  // namespace

void QuantizeRow(const float* x, int64_t cols, int bytes,
                 ActivationBlock* out) {
  HWY_DYNAMIC_DISPATCH(TargetQuantizeRow)(x, cols, bytes, out);
}

void QuantizedMatMulTask(const MatMulOperands& operands,
                         const ActivationBlock* x, const MatMulTask& task) {
  HWY_DYNAMIC_DISPATCH(TargetTask)(operands, x, task);
}

}  // namespace headcount
#endif  // HWY_ONCE
