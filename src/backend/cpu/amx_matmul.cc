// A product is 16 rows of x times 16 outputs over a block of 32 columns: one
// tile of each, two of x where its elements have two bytes. Its sums go through
// memory to the vector registers, which scale them and hold the float sums.
// While the CPU works on tiles it has one unit for float vectors, not two, so
// what counts is that this one never waits: products are two ahead of the
// scaling, across the ends of rows and panels' halves.
//
// Blocks come in groups, whose weights are unpacked once a task and stay in the
// first-level cache while all rows of the task pass.
#define HWY_WANT_AVX3_DL

#include "backend/cpu/amx_matmul.h"

#include <algorithm>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/amx_matmul.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/matmul-inl.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

// Every CPU with AMX has AVX3_DL.
#if HWY_TARGET == HWY_AVX3_DL

constexpr int64_t kHalves = kQuantizedRows / kAmxRows;  // of a panel
constexpr int64_t kSums = kAmxRows * kAmxRows;          // of a product
constexpr int64_t kMaxGroupBlocks = 8;

// 16 pairs of columns of 16 outputs, in bf16. Pairs are columns 0 and 2, 1 and
// 3, 4 and 6, 5 and 7, 8 and 10 of a block, and so on.
struct alignas(64) WeightTile {
  uint16_t q[kAmxRows][kAmxRows][2];
};

// What LDTILECFG reads. Tiles: 0 sums, 1 weights, 2 and 3 the bytes of x.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16};
};

// Blocks of one panel, times the rows of a task.
struct AmxGroup {
  const AmxBlock* x = nullptr;  // [row_tiles][x_stride]
  int64_t x_stride = 0;
  int64_t row_tiles = 0;
  const std::byte* panel = nullptr;  // the first block, for its scales
  const WeightTile* w = nullptr;     // [blocks][kHalves]
  int64_t blocks = 0;
  float* sums = nullptr;  // [row_tiles][kHalves][kSums], of all groups so far
};

// The tile instructions, in assembly since intrinsics want a target of their
// own. The next product's place: blocks, halves, row tiles.
template <int kBytes>
class ProductLoop {
 public:
  explicit ProductLoop(const AmxGroup& group)
      : group_(group), x_(group.x), w_(group.w) {}

  // Multiplies into tile 0. After the last product come others of no use.
  HWY_INLINE void Multiply() {
    const int64_t stride = 64;
    asm volatile(
        "tilezero %%tmm0\n\t"
        "tileloadd (%0,%2,1), %%tmm2\n\t"
        "tileloadd (%1,%2,1), %%tmm1\n\t"
        "tdpbf16ps %%tmm1, %%tmm2, %%tmm0"
        :
        : "r"(x_->q), "r"(w_->q), "r"(stride)
        : "memory");
    if constexpr (kBytes == 2) {
      asm volatile(
          "tileloadd (%0,%1,1), %%tmm3\n\t"
          "tdpbf16ps %%tmm1, %%tmm3, %%tmm0"
          :
          : "r"(x_[1].q), "r"(stride)
          : "memory");
    }
    x_ += kBytes;
    w_ += kHalves;
    if (++block_ == group_.blocks) NextHalf();
  }

  HWY_INLINE static void Store(float* sums) {
    const int64_t stride = 64;
    asm volatile("tilestored %%tmm0, (%0,%1,1)"
                 :
                 : "r"(sums), "r"(stride)
                 : "memory");
  }

 private:
  HWY_INLINE void NextHalf() {
    block_ = 0;
    x_ -= group_.blocks * kBytes;
    if (++half_ == kHalves) {
      half_ = 0;
      if (++row_tile_ < group_.row_tiles) x_ += group_.x_stride;
    }
    w_ = group_.w + half_;
  }

  const AmxGroup& group_;
  const AmxBlock* x_;
  const WeightTile* w_;
  int64_t block_ = 0;
  int64_t half_ = 0;
  int64_t row_tile_ = 0;
};

// Adds 16 rows of products of one block, scaled. halves: scales and minimums.
HWY_INLINE void AddProduct(const float* HWY_RESTRICT products,
                           const hwy::float16_t* HWY_RESTRICT halves,
                           const AmxBlock& x, VF32 (&total)[kAmxRows]) {
  const F32 d;
  const VF32 scale = LoadFloats(d, halves);
  const VF32 min = LoadFloats(d, halves + kQuantizedRows);
#pragma GCC unroll 16
  for (int r = 0; r < kAmxRows; ++r) {
    total[r] = hn::MulAdd(min, hn::Set(d, x.scaled_sum[r]), total[r]);
    total[r] = hn::MulAdd(hn::Load(d, products + r * kAmxRows),
                          hn::Mul(scale, hn::Set(d, x.scale[r])), total[r]);
  }
}

template <int kBytes>
HWY_NOINLINE void ComputeGroup(const AmxGroup& group) {
  const F32 d;
  HWY_ALIGN float products[2][kSums];
  ProductLoop<kBytes> loop(group);
  loop.Multiply();
  loop.Store(products[0]);
  loop.Multiply();
  int current = 0;
  for (int64_t i = 0; i < group.row_tiles * kHalves; ++i) {
    float* HWY_RESTRICT sums = group.sums + i * kSums;
    VF32 total[kAmxRows];
#pragma GCC unroll 16
    for (int r = 0; r < kAmxRows; ++r) {
      total[r] = hn::Load(d, sums + r * kAmxRows);
    }
    const AmxBlock* x = group.x + i / kHalves * group.x_stride;
    const std::byte* panel =
        group.panel + i % kHalves * kAmxRows * sizeof(hwy::float16_t);
    for (int64_t b = 0; b < group.blocks; ++b) {
      loop.Store(products[current ^ 1]);
      loop.Multiply();
      AddProduct(products[current],
                 reinterpret_cast<const hwy::float16_t*>(panel), *x, total);
      current ^= 1;
      x += kBytes;
      panel += QuantizedBlockBytes(4);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kAmxRows; ++r) {
      hn::Store(total[r], d, sums + r * kAmxRows);
    }
  }
}

// Looks up 0 to 15 in bf16; the index has a fifth bit, which is anything.
HWY_INLINE void Unpack(const std::byte* panel, int64_t blocks, WeightTile* to) {
  alignas(64) static constexpr uint16_t kBf16[32] = {
      0x0000, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, 0x40E0,
      0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170,
      0x0000, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0, 0x40C0, 0x40E0,
      0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};
  const __m512i table = _mm512_load_si512(kBf16);
  for (int64_t b = 0; b < blocks; ++b) {
    const std::byte* from = panel + QuantizedHeaderBytes(4);
    for (int step = 0; step < 4; ++step) {
      for (int half = 0; half < kHalves; ++half) {
        const __m512i bytes = _mm512_loadu_si512(from);
        auto* out = to[half].q + 4 * step;
        const __m512i pairs[] = {bytes, _mm512_srli_epi16(bytes, 8),
                                 _mm512_srli_epi16(bytes, 4),
                                 _mm512_srli_epi16(bytes, 12)};
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          _mm512_store_si512(out + i,
                             _mm512_permutexvar_epi16(pairs[i], table));
        }
        from += sizeof(__m512i);
      }
    }
    panel += QuantizedBlockBytes(4);
    to += kHalves;
  }
}

template <int kBytes>
void ComputeAmx(const MatMulOperands& operands, const AmxBlock* x,
                const MatMulTask& task) {
  HWY_ALIGN float sums[kAmxTaskRows * kQuantizedRows];
  WeightTile w[kMaxGroupBlocks * kHalves];
  const int64_t blocks =
      (operands.w->cols() + kQuantizedCols - 1) / kQuantizedCols;
  const int64_t rows = task.row_end - task.row_begin;
  const int64_t groups = (blocks + kMaxGroupBlocks - 1) / kMaxGroupBlocks;
  AmxGroup group{.x_stride = blocks * kBytes,
                 .row_tiles = (rows + kAmxRows - 1) / kAmxRows,
                 .w = w,
                 .sums = sums};
  x += task.row_begin / kAmxRows * group.x_stride;
  for (int64_t panel = task.panel_begin; panel < task.panel_end; ++panel) {
    std::fill_n(sums, group.row_tiles * kHalves * kSums, 0.0f);
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t begin = blocks * i / groups;
      group.x = x + begin * kBytes;
      group.panel = operands.w->panel(panel) + begin * QuantizedBlockBytes(4);
      group.blocks = blocks * (i + 1) / groups - begin;
      Unpack(group.panel, group.blocks, w);
      ComputeGroup<kBytes>(group);
    }
    for (int64_t row = 0; row < rows; ++row) {
      const float* sum =
          sums + row / kAmxRows * kHalves * kSums + row % kAmxRows * kAmxRows;
      for (int64_t half = 0; half < kHalves; ++half) {
        StoreOutput(operands, task.row_begin + row,
                    panel * kQuantizedRows + half * kAmxRows,
                    sum + half * kSums);
      }
    }
  }
}

void TargetAmxTask(const MatMulOperands& operands, const AmxBlock* x,
                   const MatMulTask& task) {
  const TileShapes shapes;
  asm volatile("ldtilecfg %0" : : "m"(shapes));
  if (operands.w->input_bytes() == 1) {
    ComputeAmx<1>(operands, x, task);
  } else {
    ComputeAmx<2>(operands, x, task);
  }
  // Else every switch of threads would save the tiles.
  asm volatile("tilerelease");
}

// 16 columns, times 2^shift.
template <int kShift>
HWY_INLINE void PackColumns(const int8_t* from, uint16_t* to) {
  const F32 d;
  const hn::Rebind<int8_t, F32> d8;
  const hn::Rebind<hwy::bfloat16_t, F32> d16;
  HWY_ALIGN static constexpr int8_t kOrder[16] = {0, 2,  1, 3,  4,  6,  5,  7,
                                                  8, 10, 9, 11, 12, 14, 13, 15};
  const auto order = hn::Load(d8, kOrder);
  const auto bytes = hn::TableLookupBytes(hn::LoadU(d8, from), order);
  const auto q = hn::PromoteTo(hn::RebindToSigned<F32>(), bytes);
  const auto floats = hn::ConvertTo(d, hn::ShiftLeft<kShift>(q));
  hn::StoreU(hn::DemoteTo(d16, floats), d16,
             reinterpret_cast<hwy::bfloat16_t*>(to));
}

template <int kShift>
HWY_INLINE void PackRow(const ActivationBlock& x, uint16_t* to) {
  PackColumns<kShift>(x.q, to);
  PackColumns<kShift>(x.q + 16, to + 16);
}

void TargetPackAmxRows(const ActivationBlock* x, int64_t rows, int bytes,
                       int64_t blocks, AmxBlock* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t r = 0; r < rows; ++r) {
      const ActivationBlock* from = x + r * bytes * blocks + b;
      out->scale[r] = from->scale;
      out->scaled_sum[r] = from->scaled_sum;
      if (bytes == 1) {
        PackRow<0>(*from, out->q[r]);
      } else {
        PackRow<8>(*from, out->q[r]);
        PackRow<0>(from[blocks], out[1].q[r]);
      }
    }
    out += bytes;
  }
}

#else  // never called: see AmxIsBetter

void TargetAmxTask(const MatMulOperands& /*operands*/, const AmxBlock* /*x*/,
                   const MatMulTask& /*task*/) {}
void TargetPackAmxRows(const ActivationBlock* /*x*/, int64_t /*rows*/,
                       int /*bytes*/, int64_t /*blocks*/, AmxBlock* /*out*/) {}

#endif

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {
namespace {

HWY_EXPORT(TargetAmxTask);
HWY_EXPORT(TargetPackAmxRows);

// Below it, unpacking weights costs what tiles save.
constexpr int64_t kMinRows = 32;

// The kernel saves tiles only for a process that has asked for them.
bool RequestAmx() {
#if defined(__x86_64__) && defined(__linux__)
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr unsigned kBits = 1u << 22 | 1u << 24;  // AMX-BF16 and AMX-TILE
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kBits) != kBits) return false;
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

bool HasAmx() {
  static const bool granted = RequestAmx();
  return granted && (hwy::SupportedTargets() & HWY_AVX3_DL) != 0;
}

bool AmxIsBetter(const PackedMatrix& w, int64_t rows) {
  return w.dtype() == ElementType::kQ4_1 && rows >= kMinRows && HasAmx();
}

void PackAmxRows(const ActivationBlock* x, int64_t rows, int bytes,
                 int64_t blocks, AmxBlock* out) {
  HWY_DYNAMIC_DISPATCH(TargetPackAmxRows)(x, rows, bytes, blocks, out);
}

void AmxMatMulTask(const MatMulOperands& operands, const AmxBlock* x,
                   const MatMulTask& task) {
  HWY_DYNAMIC_DISPATCH(TargetAmxTask)(operands, x, task);
}

}  // namespace headcount
#endif  // HWY_ONCE
