// Attention over pages of integers, whose products are integers too: exact,
// and of four elements at a time.
//
// A query becomes integers of 16 bits of its largest element, and so do the
// weights of each span of 64 tokens, times the scales of their values: what
// that rounds off is far below the rounding of the pages. Numbers of 16 bits
// are two planes of bytes, 256 * high + low. Those of queries are signed, to be
// multiplied with codes as they are stored: unsigned, kOffset above their
// value, which a sum starts by making up for. Weights are unsigned, and codes
// of values become signed first. A span's sum of weighted values becomes float
// before it joins others.
//
// What a query does not see has weight 0 by its index, whatever its scale, and
// an integer times 0 is nothing: queries of a tile may walk blocks that only
// some of them see.

// Products of bytes (VNNI) are what AVX3_DL has.
#define HWY_WANT_AVX3_DL

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numbers>

#include "backend/cpu/attention_walk.h"
#include "hwy/cache_control.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention_integer.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/attention_walk-inl.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

#ifndef HEADCOUNT_BACKEND_CPU_ATTENTION_INTEGER_TYPES
#define HEADCOUNT_BACKEND_CPU_ATTENTION_INTEGER_TYPES
namespace headcount {

// The largest number of 16 bits with planes of -127 to 127, and of 0 to 255.
inline constexpr float kLargestSigned = 127 * 256 + 127;
inline constexpr float kLargestUnsigned = 255 * 256 + 255;

struct QueryPlanes {
  int8_t high[kMaxHeadDim];
  int8_t low[kMaxHeadDim];
  int32_t offset;  // what sums of products with codes start with
  float step;      // value of 1; NaN where not all numbers are finite
};
static_assert(sizeof(QueryPlanes) <= kQueryStride * sizeof(float));

// Of one block; takes the place of its scores.
struct WeightPlanes {
  uint8_t high[kBlockTokens];
  uint8_t low[kBlockTokens];
  float step;  // that of the span, in its first block
};
static_assert(sizeof(WeightPlanes) <= kBlockTokens * sizeof(float));

inline constexpr int kSpanBlocks = 4;

}  // namespace headcount
#endif

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

using I32 = hn::RebindToSigned<F32>;
using U32 = hn::RebindToUnsigned<F32>;
using VI32 = hn::Vec<I32>;
using VU32 = hn::Vec<U32>;

// Adds to each lane the products of the four bytes of `u`, unsigned, with those
// of `x`, signed.
#if HWY_TARGET == HWY_AVX3_DL
// _mm512_dpbusd_epi32, which the compiler refuses: Highway 1.0.3 asks it for
// avxvnni where avx512vnni is meant.
HWY_INLINE VI32 AddByteProducts(VI32 sum, VU32 u, VI32 x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(u.raw), "v"(x.raw));
  return sum;
}
#elif HWY_TARGET == HWY_AVX3
HWY_INLINE VI32 AddByteProducts(VI32 sum, VU32 u, VI32 x) {
  const auto even =
      _mm512_madd_epi16(_mm512_and_si512(u.raw, _mm512_set1_epi16(255)),
                        _mm512_srai_epi16(_mm512_slli_epi16(x.raw, 8), 8));
  const auto odd = _mm512_madd_epi16(_mm512_srli_epi16(u.raw, 8),
                                     _mm512_srai_epi16(x.raw, 8));
  return hn::Add(sum, hn::Add(VI32{even}, VI32{odd}));
}
#elif HWY_TARGET == HWY_AVX2
HWY_INLINE VI32 AddByteProducts(VI32 sum, VU32 u, VI32 x) {
  const auto even =
      _mm256_madd_epi16(_mm256_and_si256(u.raw, _mm256_set1_epi16(255)),
                        _mm256_srai_epi16(_mm256_slli_epi16(x.raw, 8), 8));
  const auto odd = _mm256_madd_epi16(_mm256_srli_epi16(u.raw, 8),
                                     _mm256_srai_epi16(x.raw, 8));
  return hn::Add(sum, hn::Add(VI32{even}, VI32{odd}));
}
#else
template <int kByte>
HWY_INLINE VI32 ByteProduct(VU32 u, VI32 x) {
  const auto byte = hn::And(hn::ShiftRight<8 * kByte>(u), hn::Set(U32(), 255u));
  const auto factor = hn::ShiftRight<24>(hn::ShiftLeft<24 - 8 * kByte>(x));
  return hn::Mul(hn::BitCast(I32(), byte), factor);
}
HWY_INLINE VI32 AddByteProducts(VI32 sum, VU32 u, VI32 x) {
  const VI32 low = hn::Add(ByteProduct<0>(u, x), ByteProduct<1>(u, x));
  const VI32 high = hn::Add(ByteProduct<2>(u, x), ByteProduct<3>(u, x));
  return hn::Add(sum, hn::Add(low, high));
}
#endif

// The four bytes at `from` in every lane.
template <class Byte>
HWY_INLINE VI32 FourBytes(const Byte* from) {
  int32_t bytes;
  std::memcpy(&bytes, from, sizeof(bytes));
  return hn::Set(I32(), bytes);
}

// How tiles read the pages of a dtype (see kv_store.h): a word of 32 bits is
// kPlanes times four codes.
struct Int8Pages {
  static constexpr int kPlanes = 1;
  static constexpr int kOffset = 128;
  // Words of V from one group of four tokens to the next.
  static int64_t ValueStride(int head_dim) { return head_dim; }
  template <int kPlane>
  static HWY_INLINE VU32 Codes(VU32 words) {
    return words;
  }
};

struct Int4Pages {
  static constexpr int kPlanes = 2;
  static constexpr int kOffset = 8;
  static int64_t ValueStride(int head_dim) { return (head_dim + 31) / 32 * 16; }
  template <int kPlane>
  static HWY_INLINE VU32 Codes(VU32 words) {
    return hn::And(kPlane == 0 ? words : hn::ShiftRight<4>(words),
                   hn::Set(U32(), 0x0F0F0F0Fu));
  }
};

// The codes of a plane of words as signed bytes: what they stand for.
template <class Pages, int kPlane>
HWY_INLINE VI32 SignedCodes(VU32 words) {
  // Bytes below 16 do not carry. To flip a byte's top bit is to add 128.
  VU32 codes = Pages::template Codes<kPlane>(words);
  if constexpr (Pages::kOffset < 128) {
    constexpr uint32_t kByte = 128 - Pages::kOffset;
    codes = hn::Add(codes, hn::Set(U32(), kByte * 0x01010101u));
  }
  return hn::BitCast(I32(), hn::Xor(codes, hn::Set(U32(), 0x80808080u)));
}

// Stores the low byte of each lane.
HWY_INLINE void StoreLowBytes(VU32 lanes, uint8_t* to) {
  const hn::Rebind<uint8_t, U32> d8;
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
  // TruncateTo of Highway 1.0.3 takes other bytes on AVX3_DL.
  hn::StoreU(hn::Vec<decltype(d8)>{_mm512_cvtepi32_epi8(lanes.raw)}, d8, to);
#else
  hn::StoreU(hn::TruncateTo(d8, lanes), d8, to);
#endif
}

// What numbers are multiplied with to become integers up to `most`, and what
// these have to be multiplied with to become numbers again.
struct IntegerScale {
  float to_integer = 0;
  float step = 0;

  // `bits`: the largest of the bits of magnitudes: those of NaN, of infinity or
  // of the largest number.
  static HWY_INLINE IntegerScale Of(int32_t bits, float most) {
    const float largest = std::bit_cast<float>(bits);
    if (largest < 0x1p-100f) return {};
    if (bits >= 0x7F800000) return {0.0f, NAN};
    return {most / largest, largest * (1.0f / most)};
  }
};

HWY_INLINE void MakeQueryPlanes(const float* HWY_RESTRICT from, int count,
                                int offset_of_codes, QueryPlanes* to) {
  const hn::CappedTag<float, 8> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto most = hn::Zero(di);
  for (int i = 0; i < count; i += lanes) {
    most = hn::Max(most, hn::BitCast(di, hn::Abs(hn::LoadU(d, from + i))));
  }
  const IntegerScale scale =
      IntegerScale::Of(hn::GetLane(hn::MaxOfLanes(di, most)), kLargestSigned);
  auto sum = hn::Zero(di);
  for (int i = 0; i < count; i += lanes) {
    const auto x =
        hn::Mul(hn::LoadU(d, from + i), hn::Set(d, scale.to_integer));
    // 0 where it is NaN.
    const auto number = hn::NearestInt(hn::IfThenElseZero(hn::Eq(x, x), x));
    sum = hn::Add(sum, number);
    const auto low = hn::ShiftRight<24>(hn::ShiftLeft<24>(number));
    const auto high = hn::ShiftRight<8>(hn::Sub(number, low));
    hn::StoreU(hn::DemoteTo(d8, low), d8, to->low + i);
    hn::StoreU(hn::DemoteTo(d8, high), d8, to->high + i);
  }
  to->offset = -offset_of_codes * hn::GetLane(hn::SumOfLanes(di, sum));
  to->step = scale.step;
}

HWY_INLINE QueryPlanes* QueryAt(const ChunkWalk& chunk, int query) {
  return reinterpret_cast<QueryPlanes*>(chunk.scratch.q + query * kQueryStride);
}
HWY_INLINE WeightPlanes* WeightsAt(const ChunkWalk& chunk, int64_t block,
                                   int query) {
  return reinterpret_cast<WeightPlanes*>(chunk.Scores(block, query));
}

// Makes integers of the queries, scaled so that 2^score is the weight.
template <class Pages>
void QuantizeQueries(const ChunkWalk& chunk) {
  const Walk& walk = *chunk.walk;
  const float scale = std::numbers::log2e_v<float> /
                      std::sqrt(static_cast<float>(walk.head_dim));
  for (int i = 0; i < chunk.count(); ++i) {
    const int query = chunk.begin + i;
    QueryPlanes* const to = QueryAt(chunk, i);
    MakeQueryPlanes(walk.q + query / walk.num_queries * walk.q_stride +
                        walk.slots[query % walk.num_queries] * walk.head_dim,
                    walk.head_dim, Pages::kOffset, to);
    to->step *= scale;
  }
}

// Integer sums of a tile, one for each plane, with room for operands: products
// without VNNI take many.
constexpr int kIntegerSums = HWY_TARGET == HWY_AVX3_DL ? 24
                             : kManyRegisters          ? 16
                                                       : 8;

// Score tiles: queries x blocks of 16 tokens.
constexpr int kMaxIntegerScoreQueries =
    std::clamp(kIntegerSums / (2 * kTokenVectors), 1, 12);
constexpr int IntegerScoreBlocks(int queries) {
  return PowerOfTwoBelow(
      std::max(1, kIntegerSums / (2 * queries * kTokenVectors)));
}

template <int R, int B>
struct ScoreSums {
  VI32 high[R][B][kTokenVectors];
  VI32 low[R][B][kTokenVectors];
};

// Adds the products of four elements of R queries, from `element` on, with
// those of the keys of B blocks.
template <class Pages, int kPlane, int R, int B>
HWY_INLINE void AddKeys(const VU32 (&words)[B][kTokenVectors],
                        const QueryPlanes* const (&q)[R], int element,
                        ScoreSums<R, B>& sums) {
  VU32 codes[B][kTokenVectors];
#pragma GCC unroll 16
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
    for (int v = 0; v < kTokenVectors; ++v) {
      codes[b][v] = Pages::template Codes<kPlane>(words[b][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const VI32 high = FourBytes(q[r]->high + element);
    const VI32 low = FourBytes(q[r]->low + element);
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
      for (int v = 0; v < kTokenVectors; ++v) {
        sums.high[r][b][v] =
            AddByteProducts(sums.high[r][b][v], codes[b][v], high);
        sums.low[r][b][v] =
            AddByteProducts(sums.low[r][b][v], codes[b][v], low);
      }
    }
  }
}

// Float scores of integer sums.
template <int R, int B>
HWY_INLINE void StoreScores(const ChunkWalk& chunk, int query, int64_t block,
                            const QueryPlanes* const (&q)[R],
                            const ScoreSums<R, B>& sums) {
  const F32 d;
#pragma GCC unroll 16
  for (int b = 0; b < B; ++b) {
    const uint16_t* scales =
        chunk.Scales(block + b, chunk.walk->page.k_scales_offset);
#pragma GCC unroll 16
    for (int v = 0; v < kTokenVectors; ++v) {
      const VF32 scale = LoadHalves(d, scales + v * kStep);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const VI32 total =
            hn::Add(hn::ShiftLeft<8>(sums.high[r][b][v]), sums.low[r][b][v]);
        const VF32 step = hn::Mul(scale, hn::Set(d, q[r]->step));
        hn::StoreU(hn::Mul(hn::ConvertTo(d, total), step), d,
                   chunk.Scores(block + b, query + r) + v * kStep);
      }
    }
  }
}

// Scores of R queries against B blocks.
template <class Pages, int R, int B>
HWY_NOINLINE void IntegerScoreTile(const ChunkWalk& chunk, int query,
                                   int64_t block) {
  const U32 du;
  const int64_t page = chunk.walk->page.k_offset;
  const uint32_t* k[B];
  const uint32_t* next[B];
  for (int b = 0; b < B; ++b) {
    k[b] = chunk.Page<uint32_t>(block + b, page);
    next[b] = chunk.Page<uint32_t>(chunk.Ahead(block + b, B), page);
  }
  const QueryPlanes* q[R];
  ScoreSums<R, B> sums;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    q[r] = QueryAt(chunk, query + r);
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
      for (int v = 0; v < kTokenVectors; ++v) {
        sums.high[r][b][v] = hn::Zero(I32());
        sums.low[r][b][v] = hn::Set(I32(), q[r]->offset);
      }
    }
  }
  constexpr int kWordElements = 4 * Pages::kPlanes;
  const int head_dim = chunk.walk->head_dim;
  for (int i = 0; i < head_dim; i += kWordElements) {
    const int offset = i / kWordElements * kBlockTokens;
    VU32 words[B][kTokenVectors];
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) {
      hwy::Prefetch(next[b] + offset);
#pragma GCC unroll 16
      for (int v = 0; v < kTokenVectors; ++v) {
        words[b][v] = hn::LoadU(du, k[b] + offset + v * kStep);
      }
    }
    AddKeys<Pages, 0, R, B>(words, q, i, sums);
    if constexpr (Pages::kPlanes > 1) {
      AddKeys<Pages, 1, R, B>(words, q, i + 4, sums);
    }
  }
  StoreScores<R, B>(chunk, query, block, q, sums);
}

template <class Pages, int R = kMaxIntegerScoreQueries>
HWY_INLINE void IntegerScoreTiles(const ChunkWalk& chunk, int query,
                                  int queries, int64_t block, int blocks) {
  if (queries == R) {
    constexpr int kBlocks = IntegerScoreBlocks(R);
    if (blocks == kBlocks) {
      return IntegerScoreTile<Pages, R, kBlocks>(chunk, query, block);
    }
    for (int b = 0; b < blocks; ++b) {
      IntegerScoreTile<Pages, R, 1>(chunk, query, block + b);
    }
    return;
  }
  if constexpr (R > 1) {
    IntegerScoreTiles<Pages, R - 1>(chunk, query, queries, block, blocks);
  }
}

// All scores of the chunk. Blocks outside, so that keys are read once.
template <class Pages>
void ComputeIntegerScores(const ChunkWalk& chunk) {
  const int count = chunk.count();
  const int tiles =
      (count + kMaxIntegerScoreQueries - 1) / kMaxIntegerScoreQueries;
  const int step = IntegerScoreBlocks((count + tiles - 1) / tiles);
  const int64_t blocks = chunk.blocks();
  for (int64_t block = 0; block < blocks; block += step) {
    const int taken = static_cast<int>(std::min<int64_t>(step, blocks - block));
    for (int tile = 0; tile < tiles; ++tile) {
      const int begin = TileBegin(count, tile, tiles);
      IntegerScoreTiles<Pages>(chunk, begin,
                               TileBegin(count, tile + 1, tiles) - begin, block,
                               taken);
    }
  }
}

// Blocks [begin, end) of a chunk that make up span `span`: counted from where
// chunks begin, which may be before an item does.
HWY_INLINE TokenRange SpanBlocks(const ChunkWalk& chunk, int64_t span) {
  const int64_t before = chunk.token % chunk.walk->chunk_tokens / kBlockTokens;
  return {std::max<int64_t>(span * kSpanBlocks - before, 0),
          std::min((span + 1) * kSpanBlocks - before, chunk.blocks())};
}
// Spans [begin, end) of which a chunk has something.
HWY_INLINE TokenRange Spans(const ChunkWalk& chunk, TokenRange blocks) {
  const int64_t before = chunk.token % chunk.walk->chunk_tokens / kBlockTokens;
  return {(blocks.begin + before) / kSpanBlocks,
          (blocks.end + before + kSpanBlocks - 1) / kSpanBlocks};
}

// Makes integers of the weights of a query in one span, times the scales of the
// values.
HWY_INLINE void QuantizeSpan(const ChunkWalk& chunk, int query, TokenRange seen,
                             TokenRange blocks) {
  const F32 d;
  const I32 di;
  const int count = static_cast<int>(blocks.end - blocks.begin);
  VF32 weights[kSpanBlocks][kTokenVectors];
  VI32 most = hn::Zero(di);
#pragma GCC unroll 16
  for (int b = 0; b < kSpanBlocks; ++b) {
#pragma GCC unroll 16
    for (int v = 0; v < kTokenVectors; ++v) weights[b][v] = hn::Zero(d);
    const int64_t block = blocks.begin + b;
    const TokenRange here = seen.From(block * kBlockTokens);
    if (b >= count || here.end <= 0 || here.begin >= kBlockTokens) continue;
    const uint16_t* scales =
        chunk.Scales(block, chunk.walk->page.v_scales_offset);
    const float* from = chunk.Scores(block, query);
#pragma GCC unroll 16
    for (int v = 0; v < kTokenVectors; ++v) {
      weights[b][v] = ZeroUnseen(hn::Mul(hn::LoadU(d, from + v * kStep),
                                         LoadHalves(d, scales + v * kStep)),
                                 v, here);
      most = hn::Max(most, hn::BitCast(di, hn::Abs(weights[b][v])));
    }
  }
  const IntegerScale scale =
      IntegerScale::Of(hn::GetLane(hn::MaxOfLanes(di, most)), kLargestUnsigned);
  const VF32 to_integer = hn::Set(d, scale.to_integer);
#pragma GCC unroll 16
  for (int b = 0; b < kSpanBlocks; ++b) {
    if (b >= count) break;
    WeightPlanes* const to = WeightsAt(chunk, blocks.begin + b, query);
    for (int v = 0; v < kTokenVectors; ++v) {
      // An addition rounds: the last 16 bits of 2^23 + x are the integer.
      const VU32 number = hn::BitCast(
          U32(), hn::MulAdd(weights[b][v], to_integer, hn::Set(d, 0x1p23f)));
      StoreLowBytes(hn::ShiftRight<8>(number), to->high + v * kStep);
      StoreLowBytes(number, to->low + v * kStep);
    }
    to->step = scale.step;
  }
}

// What of a chunk at least one of queries [begin, end) sees.
HWY_INLINE TokenRange SeenBlocks(const ChunkWalk& chunk, int begin, int end) {
  // Both ends of what is seen rise with the query.
  const int64_t first = chunk.Seen(chunk.begin + begin).begin;
  const int64_t last = chunk.Seen(chunk.begin + end - 1).end;
  return {first / kBlockTokens, (last + kBlockTokens - 1) / kBlockTokens};
}

// Value tiles: queries x vectors of words.
constexpr int kMaxIntegerValueQueries = std::min(kIntegerSums / 2, 8);
constexpr int IntegerValueVectors(int queries) {
  return PowerOfTwoBelow(std::clamp(kIntegerSums / (3 * queries), 1, 2));
}

template <int R, int N>
struct ValueSums {
  VI32 high[R][N];
  VI32 low[R][N];
};

// Adds the weighted values of four tokens: those of one plane of N vectors of
// words, to the sums of R queries, whose weights are one row of scores apart.
template <class Pages, int kPlane, int R, int N>
HWY_INLINE void AddValues(const VU32 (&words)[N], const WeightPlanes* weights,
                          int token, ValueSums<R, N>& sums) {
  VI32 codes[N];
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) codes[n] = SignedCodes<Pages, kPlane>(words[n]);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const auto* its = reinterpret_cast<const WeightPlanes*>(
        reinterpret_cast<const float*>(weights) + r * kBlockTokens);
    const VU32 high = hn::BitCast(U32(), FourBytes(its->high + token));
    const VU32 low = hn::BitCast(U32(), FourBytes(its->low + token));
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      sums.high[r][n] = AddByteProducts(sums.high[r][n], high, codes[n]);
      sums.low[r][n] = AddByteProducts(sums.low[r][n], low, codes[n]);
    }
  }
}

// Stores the vectors of one plane of word `word` on into a state: as many
// elements as the head has.
template <class Pages, int kPlane, int N>
HWY_INLINE void StoreValues(const VF32 (&sum)[N], int word, int head_dim,
                            float* state) {
  const F32 d;
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) {
    const int at = word + n * kStep;
    const int element =
        Pages::kPlanes == 1 ? at : at / 16 * 32 + kPlane * 16 + at % 16;
    const int count = std::clamp(head_dim - element, 0, kStep);
    if (count == kStep) {
      hn::StoreU(sum[n], d, state + element);
    } else if (count > 0) {
      hn::BlendedStore(sum[n], hn::FirstN(d, static_cast<size_t>(count)), d,
                       state + element);
    }
  }
}

template <int R, int N>
HWY_INLINE void ClearSums(ValueSums<R, N>& sums) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      sums.high[r][n] = hn::Zero(I32());
      sums.low[r][n] = hn::Zero(I32());
    }
  }
}

// Adds the integer sums of a span to those of R queries.
template <int R, int N>
HWY_INLINE void AddSpan(const ChunkWalk& chunk, int query, int64_t first_block,
                        const ValueSums<R, N>& sums, VF32 (&sum)[R][N]) {
  const F32 d;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const VF32 step =
        hn::Set(d, WeightsAt(chunk, first_block, query + r)->step);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      const VI32 total =
          hn::Add(hn::ShiftLeft<8>(sums.high[r][n]), sums.low[r][n]);
      sum[r][n] = hn::MulAdd(hn::ConvertTo(d, total), step, sum[r][n]);
    }
  }
}

// Computes N vectors, from word `word` on, of one plane of the weighted sums of
// R queries over blocks [blocks.begin, blocks.end).
template <class Pages, int kPlane, int R, int N>
HWY_NOINLINE void IntegerValueTile(const ChunkWalk& chunk, int query, int word,
                                   TokenRange blocks) {
  const U32 du;
  const int head_dim = chunk.walk->head_dim;
  const int64_t stride = Pages::ValueStride(head_dim);
  const int64_t page = chunk.walk->page.v_offset;
  VF32 sum[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) sum[r][n] = hn::Zero(F32());
  }
  const TokenRange spans = Spans(chunk, blocks);
  for (int64_t span = spans.begin; span < spans.end; ++span) {
    const TokenRange in_span = SpanBlocks(chunk, span);
    ValueSums<R, N> sums;
    ClearSums(sums);
    for (int64_t block = std::max(in_span.begin, blocks.begin);
         block < std::min(in_span.end, blocks.end); ++block) {
      const uint32_t* value = chunk.Page<uint32_t>(block, page) + word;
      const uint32_t* next =
          chunk.Page<uint32_t>(chunk.Ahead(block, kValueBlocksAhead), page) +
          word;
      const WeightPlanes* weights = WeightsAt(chunk, block, query);
      for (int group = 0; group < kBlockTokens / 4; ++group) {
        VU32 words[N];
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
          if (n * kStep % 16 == 0) {
            hwy::Prefetch(next + group * stride + n * kStep);
          }
          words[n] = hn::LoadU(du, value + group * stride + n * kStep);
        }
        AddValues<Pages, kPlane, R, N>(words, weights, 4 * group, sums);
      }
    }
    AddSpan<R, N>(chunk, query, in_span.begin, sums, sum);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    StoreValues<Pages, kPlane, N>(sum[r], word, head_dim,
                                  chunk.State(query + r));
  }
}

// All elements of one plane of R queries.
template <class Pages, int kPlane, int R>
HWY_INLINE void IntegerValuePlane(const ChunkWalk& chunk, int query,
                                  TokenRange blocks) {
  constexpr int kVectors = IntegerValueVectors(R);
  const int words = static_cast<int>(Pages::ValueStride(chunk.walk->head_dim));
  int word = 0;
  for (; word + kVectors * kStep <= words; word += kVectors * kStep) {
    IntegerValueTile<Pages, kPlane, R, kVectors>(chunk, query, word, blocks);
  }
  // The last vector may reach into what follows; nobody sees that.
  for (; word < words; word += kStep) {
    IntegerValueTile<Pages, kPlane, R, 1>(chunk, query, word, blocks);
  }
}

template <class Pages, int R = kMaxIntegerValueQueries>
HWY_INLINE void IntegerValueTiles(const ChunkWalk& chunk, int query,
                                  int queries, TokenRange blocks) {
  if (queries == R) {
    IntegerValuePlane<Pages, 0, R>(chunk, query, blocks);
    if constexpr (Pages::kPlanes > 1) {
      IntegerValuePlane<Pages, 1, R>(chunk, query, blocks);
    }
    return;
  }
  if constexpr (R > 1) {
    IntegerValueTiles<Pages, R - 1>(chunk, query, queries, blocks);
  }
}

// The weighted sum of values, for all queries.
template <class Pages>
void SumIntegerValues(const ChunkWalk& chunk) {
  const int count = chunk.count();
  const int tiles =
      (count + kMaxIntegerValueQueries - 1) / kMaxIntegerValueQueries;
  for (int tile = 0; tile < tiles; ++tile) {
    const int begin = TileBegin(count, tile, tiles);
    const int end = TileBegin(count, tile + 1, tiles);
    IntegerValueTiles<Pages>(chunk, begin, end - begin,
                             SeenBlocks(chunk, begin, end));
  }
}

template <class Pages>
void WalkIntegerChunk(const ChunkWalk& chunk) {
  ComputeIntegerScores<Pages>(chunk);
  const TokenRange spans = Spans(chunk, {0, chunk.blocks()});
  for (int query = 0; query < chunk.count(); ++query) {
    Softmax(chunk, query);
    const TokenRange seen = chunk.Seen(chunk.begin + query);
    for (int64_t span = spans.begin; span < spans.end; ++span) {
      QuantizeSpan(chunk, query, seen, SpanBlocks(chunk, span));
    }
  }
  SumIntegerValues<Pages>(chunk);
}

void WalkIntegerItem(const Walk& walk, const WalkScratch& scratch,
                     float* states) {
  if (walk.page.dtype == KvDtype::kInt8) {
    WalkChunks(walk, scratch, QuantizeQueries<Int8Pages>,
               WalkIntegerChunk<Int8Pages>, states);
  } else {
    WalkChunks(walk, scratch, QuantizeQueries<Int4Pages>,
               WalkIntegerChunk<Int4Pages>, states);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {

HWY_EXPORT(WalkIntegerItem);

void WalkIntegerPages(const Walk& walk, const WalkScratch& scratch,
                      float* states) {
  HWY_DYNAMIC_DISPATCH(WalkIntegerItem)(walk, scratch, states);
}

}  // namespace headcount
#endif  // HWY_ONCE
