// Attention over pages of floats, or of codes that become floats one by one:
// scores and sums are float32. Nothing unseen is multiplied by zero.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

#include "backend/cpu/attention_walk.h"
#include "hwy/cache_control.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention_float.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/attention_walk-inl.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

// How tiles read the pages of a dtype (see kv_store.h). A lane loads a word of
// kPack elements: those of one token that follow each other in K, those of
// following tokens in V. Element<j> makes floats of element j of the words.
struct SingleElements {
  static constexpr int kPack = 1;
  static constexpr bool kScaled = false;
  template <int kIndex, class D, class V>
  static HWY_INLINE hn::Vec<D> Element(D /*d*/, V words) {
    return words;
  }
};

struct F32Pages : SingleElements {
  using Word = float;
  static constexpr KvDtype kDtype = KvDtype::kF32;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const Word* from) {
    return hn::LoadU(d, from);
  }
};

struct F16Pages : SingleElements {
  using Word = uint16_t;
  static constexpr KvDtype kDtype = KvDtype::kF16;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const Word* from) {
    return LoadHalves(d, from);
  }
};

struct Bf16Pages {
  using Word = uint32_t;
  static constexpr KvDtype kDtype = KvDtype::kBf16;
  static constexpr int kPack = 2;
  static constexpr bool kScaled = false;
  template <class D>
  static HWY_INLINE auto Load(D /*d*/, const Word* from) {
    return hn::LoadU(hn::RebindToUnsigned<D>(), from);
  }
  template <int kIndex, class D, class V>
  static HWY_INLINE hn::Vec<D> Element(D d, V words) {
    const hn::RebindToUnsigned<D> du;
    return hn::BitCast(d, kIndex == 0
                              ? hn::ShiftLeft<16>(words)
                              : hn::And(words, hn::Set(du, 0xFFFF0000u)));
  }
};

// Codes times 2^-8: as halves they are that, and their scales make up for it.
struct Fp8Pages : SingleElements {
  using Word = uint8_t;
  static constexpr KvDtype kDtype = KvDtype::kFp8E4m3;
  static constexpr bool kScaled = true;
  static constexpr float kScaleFactor = 256.0f;
  template <class D>
  static HWY_INLINE hn::Vec<D> Load(D d, const Word* from) {
    const hn::Rebind<int8_t, D> d8;
    const hn::Rebind<int16_t, D> d16;
    const hn::Rebind<uint16_t, D> du16;
    // The sign goes to bits 15 and 14.
    const auto wide = hn::ShiftLeft<7>(hn::PromoteTo(
        d16, hn::LoadU(d8, reinterpret_cast<const int8_t*>(from))));
    return HalvesToFloats(
        d, hn::And(hn::BitCast(du16, wide), hn::Set(du16, 0xBFFFu)));
  }
};

// Score tiles: queries x blocks of 16 tokens.
constexpr int kMaxScoreQueries =
    std::clamp(kAccumulators / kTokenVectors, 1, 12);
constexpr int ScoreBlocks(int queries) {
  return PowerOfTwoBelow(kAccumulators / (queries * kTokenVectors));
}

// Value tiles: queries x vectors of elements.
constexpr int kMaxValueQueries = kAccumulators / 2;
constexpr int ValueVectors(int queries) {
  return PowerOfTwoBelow(kAccumulators / queries);
}

// Copies the queries, scaled so that 2^score is the weight.
void ScaleQueries(const ChunkWalk& chunk) {
  const hn::CappedTag<float, 8> d;
  const Walk& walk = *chunk.walk;
  const auto scale =
      hn::Set(d, std::numbers::log2e_v<float> /
                     std::sqrt(static_cast<float>(walk.head_dim)));
  for (int i = 0; i < chunk.count(); ++i) {
    const int query = chunk.begin + i;
    const float* from = walk.q + query / walk.num_queries * walk.q_stride +
                        walk.slots[query % walk.num_queries] * walk.head_dim;
    float* to = chunk.scratch.q + i * kQueryStride;
    for (int k = 0; k < walk.head_dim; k += static_cast<int>(hn::Lanes(d))) {
      hn::StoreU(hn::Mul(hn::LoadU(d, from + k), scale), d, to + k);
    }
  }
}

// Vector `v` of the scales of a block, times what makes up for Load.
template <class Pages>
HWY_INLINE VF32 LoadScales(const uint16_t* scales, int v) {
  const F32 d;
  return hn::Mul(LoadHalves(d, scales + v * kStep),
                 hn::Set(d, Pages::kScaleFactor));
}

// Adds the products of R queries' element at `q` + kIndex with that of keys to
// their scores.
template <class Pages, int kIndex, int R, int B, class Words>
HWY_INLINE void AddKeyElement(const Words (&words)[B][kTokenVectors],
                              const float* HWY_RESTRICT q,
                              VF32 (&sum)[R][B][kTokenVectors]) {
  const F32 d;
  VF32 key[B][kTokenVectors];
#pragma GCC unroll 16
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
    for (int v = 0; v < kTokenVectors; ++v) {
      key[b][v] = Pages::template Element<kIndex>(d, words[b][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const VF32 value = hn::Set(d, q[r * kQueryStride + kIndex]);
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
      for (int v = 0; v < kTokenVectors; ++v) {
        sum[r][b][v] = hn::MulAdd(key[b][v], value, sum[r][b][v]);
      }
    }
  }
}

// Adds the products of R queries' elements, from `q` on, with one row of words
// of B blocks to their scores.
template <class Pages, int R, int B>
HWY_INLINE void AddKeyWords(const typename Pages::Word* const (&k)[B],
                            int64_t offset, const float* HWY_RESTRICT q,
                            VF32 (&sum)[R][B][kTokenVectors]) {
  const F32 d;
  decltype(Pages::Load(d, k[0])) words[B][kTokenVectors];
#pragma GCC unroll 16
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
    for (int v = 0; v < kTokenVectors; ++v) {
      words[b][v] = Pages::Load(d, k[b] + offset + v * kStep);
    }
  }
  AddKeyElement<Pages, 0, R, B>(words, q, sum);
  if constexpr (Pages::kPack > 1) {
    AddKeyElement<Pages, 1, R, B>(words, q, sum);
  }
}

// Scores of R queries against B blocks. GCC keeps an array in registers only
// where the loops over it are unrolled early.
template <class Pages, int R, int B>
HWY_NOINLINE void ScoreTile(const ChunkWalk& chunk, int query, int64_t block) {
  using Word = typename Pages::Word;
  // Rows of words in a cache line; head_dim has whole lines of them.
  constexpr int kLineRows =
      std::max(1, 64 / (kBlockTokens * static_cast<int>(sizeof(Word))));
  const F32 d;
  const KvPage& page = chunk.walk->page;
  const Word* k[B];
  const Word* next[B];
  for (int b = 0; b < B; ++b) {
    k[b] = chunk.Page<Word>(block + b, page.k_offset);
    next[b] = chunk.Page<Word>(chunk.Ahead(block + b, B), page.k_offset);
  }
  VF32 sum[R][B][kTokenVectors];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
      for (int v = 0; v < kTokenVectors; ++v) sum[r][b][v] = hn::Zero(d);
    }
  }
  const float* HWY_RESTRICT q = chunk.scratch.q + query * kQueryStride;
  const int rows = chunk.walk->head_dim / Pages::kPack;
  for (int row = 0; row < rows; row += kLineRows) {
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) hwy::Prefetch(next[b] + row * kBlockTokens);
#pragma GCC unroll 4
    for (int i = row; i < row + kLineRows; ++i) {
      AddKeyWords<Pages, R, B>(k, int64_t{i} * kBlockTokens,
                               q + i * Pages::kPack, sum);
    }
  }
#pragma GCC unroll 16
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
    for (int v = 0; v < kTokenVectors; ++v) {
      VF32 scale;
      if constexpr (Pages::kScaled) {
        scale =
            LoadScales<Pages>(chunk.Scales(block + b, page.k_scales_offset), v);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        VF32 score = sum[r][b][v];
        if constexpr (Pages::kScaled) score = hn::Mul(score, scale);
        hn::StoreU(score, d, chunk.Scores(block + b, query + r) + v * kStep);
      }
    }
  }
}

template <class Pages, int R = kMaxScoreQueries>
HWY_INLINE void ScoreTiles(const ChunkWalk& chunk, int query, int queries,
                           int64_t block, int blocks) {
  if (queries == R) {
    constexpr int kBlocks = ScoreBlocks(R);
    if (blocks == kBlocks) {
      return ScoreTile<Pages, R, kBlocks>(chunk, query, block);
    }
    for (int b = 0; b < blocks; ++b) {
      ScoreTile<Pages, R, 1>(chunk, query, block + b);
    }
    return;
  }
  if constexpr (R > 1) {
    ScoreTiles<Pages, R - 1>(chunk, query, queries, block, blocks);
  }
}

// All scores of the chunk. Blocks outside, so that keys are read once.
template <class Pages>
void ComputeScores(const ChunkWalk& chunk) {
  const int count = chunk.count();
  const int tiles = (count + kMaxScoreQueries - 1) / kMaxScoreQueries;
  const int step = ScoreBlocks((count + tiles - 1) / tiles);
  const int64_t blocks = chunk.blocks();
  for (int64_t block = 0; block < blocks; block += step) {
    const int taken = static_cast<int>(std::min<int64_t>(step, blocks - block));
    for (int tile = 0; tile < tiles; ++tile) {
      const int begin = TileBegin(count, tile, tiles);
      ScoreTiles<Pages>(chunk, begin, TileBegin(count, tile + 1, tiles) - begin,
                        block, taken);
    }
  }
}

struct ValueRange {
  TokenRange tokens;
  int element = 0;  // and those after it
};

// Multiplies the weights of a query with the scales of the values that it sees.
template <class Pages>
void ScaleWeights(const ChunkWalk& chunk, int query) {
  const F32 d;
  const TokenRange seen = chunk.Seen(chunk.begin + query);
  for (int64_t block = seen.begin / kBlockTokens;
       block * kBlockTokens < seen.end; ++block) {
    const uint16_t* scales =
        chunk.Scales(block, chunk.walk->page.v_scales_offset);
    float* weights = chunk.Scores(block, query);
    for (int v = 0; v < kTokenVectors; ++v) {
      // Those of tokens that are not seen may become anything: nobody reads
      // them.
      hn::StoreU(hn::Mul(hn::LoadU(d, weights + v * kStep),
                         LoadScales<Pages>(scales, v)),
                 d, weights + v * kStep);
    }
  }
}

// Adds the products of element `kIndex` of words, a token's values, with its
// weights to the sums of R queries.
template <class Pages, int kIndex, int R, int N, class D, class Words>
HWY_INLINE void AddToken(D d, const Words (&words)[N],
                         const float* HWY_RESTRICT weight,
                         hn::Vec<D> (&sum)[R][N]) {
  hn::Vec<D> elements[N];
#pragma GCC unroll 16
  for (int n = 0; n < N; ++n) {
    elements[n] = Pages::template Element<kIndex>(d, words[n]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const auto w = hn::Set(d, weight[r * kBlockTokens]);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      sum[r][n] = hn::MulAdd(elements[n], w, sum[r][n]);
    }
  }
}

// Adds the weighted values of tokens [begin, end) of one block: N vectors of D
// elements from `value` on, which is in row 0 of the page. `next`: of the block
// to fetch.
template <class Pages, class D, int R, int N>
HWY_INLINE void AddBlockValues(const typename Pages::Word* value,
                               const typename Pages::Word* next, int64_t stride,
                               TokenRange tokens, const float* weight,
                               hn::Vec<D> (&sum)[R][N]) {
  const D d;
  constexpr int kWidth = static_cast<int>(hn::MaxLanes(D()));
  constexpr int kLineWords = 64 / static_cast<int>(sizeof(*value));
  constexpr int kPack = Pages::kPack;
  const int64_t last = (tokens.end - 1) / kPack;
  for (int64_t row = tokens.begin / kPack; row <= last; ++row) {
    decltype(Pages::Load(d, value)) words[N];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      if (n * kWidth % kLineWords == 0) {
        hwy::Prefetch(next + row * stride + n * kWidth);
      }
      words[n] = Pages::Load(d, value + row * stride + n * kWidth);
    }
    const int64_t token = row * kPack;
    if (kPack == 1 || token >= tokens.begin) {
      AddToken<Pages, 0, R, N>(d, words, weight + token, sum);
    }
    if constexpr (kPack > 1) {
      if (token + 1 < tokens.end) {
        AddToken<Pages, 1, R, N>(d, words, weight + token + 1, sum);
      }
    }
  }
}

// Adds weighted values to the states of R queries: N vectors of D elements.
template <class Pages, int R, int N, class D>
HWY_NOINLINE void ValueTile(D d, const ChunkWalk& chunk, int query,
                            const ValueRange& range) {
  using Word = typename Pages::Word;
  constexpr int kWidth = static_cast<int>(hn::MaxLanes(D()));
  const int head_dim = chunk.walk->head_dim;
  // Words from one row of the page to the next.
  const int64_t stride = KvRowBytes(head_dim, Pages::kDtype) * Pages::kPack /
                         static_cast<int64_t>(sizeof(Word));
  const int64_t page_offset = chunk.walk->page.v_offset;
  const int64_t state_size = StateSize(head_dim);
  float* state = chunk.State(query) + range.element;
  hn::Vec<D> sum[R][N];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      sum[r][n] = hn::LoadU(d, state + r * state_size + n * kWidth);
    }
  }
  for (int64_t token = range.tokens.begin; token < range.tokens.end;) {
    const int64_t block = token / kBlockTokens;
    const int64_t first = block * kBlockTokens;
    const int64_t end =
        std::min<int64_t>(first + kBlockTokens, range.tokens.end);
    AddBlockValues<Pages, D, R, N>(
        chunk.Page<Word>(block, page_offset) + range.element,
        chunk.Page<Word>(chunk.Ahead(block, kValueBlocksAhead), page_offset) +
            range.element,
        stride, TokenRange{token, end}.From(first), chunk.Scores(block, query),
        sum);
    token = end;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      hn::StoreU(sum[r][n], d, state + r * state_size + n * kWidth);
    }
  }
}

// All elements of R queries.
template <class Pages, int R>
void ValueTiles(const ChunkWalk& chunk, int query, ValueRange range) {
  const F32 d;
  constexpr int kWidth = kStep;
  constexpr int kVectors = ValueVectors(R);
  const int head_dim = chunk.walk->head_dim;
  int& element = range.element;
  for (; element + kVectors * kWidth <= head_dim;
       element += kVectors * kWidth) {
    ValueTile<Pages, R, kVectors>(d, chunk, query, range);
  }
  if constexpr (kVectors > 2) {
    if (element + 2 * kWidth <= head_dim) {
      ValueTile<Pages, R, 2>(d, chunk, query, range);
      element += 2 * kWidth;
    }
  }
  if (element + kWidth <= head_dim) {
    ValueTile<Pages, R, 1>(d, chunk, query, range);
    element += kWidth;
  }
  if (element < head_dim) {  // half a vector of 16
    ValueTile<Pages, R, 1>(hn::CappedTag<float, 8>(), chunk, query, range);
  }
}

template <class Pages, int R = kMaxValueQueries>
HWY_INLINE void ValueTiles(const ChunkWalk& chunk, int query, int queries,
                           TokenRange tokens) {
  if (queries == R) return ValueTiles<Pages, R>(chunk, query, {tokens});
  if constexpr (R > 1) {
    ValueTiles<Pages, R - 1>(chunk, query, queries, tokens);
  }
}

// The weighted sum of values, for all queries: tokens that all of a tile see in
// one go, those before and after them query by query.
template <class Pages>
void SumValues(const ChunkWalk& chunk) {
  const int count = chunk.count();
  const int tiles = (count + kMaxValueQueries - 1) / kMaxValueQueries;
  for (int tile = 0; tile < tiles; ++tile) {
    const int begin = TileBegin(count, tile, tiles);
    const int end = TileBegin(count, tile + 1, tiles);
    // Queries rise with their rows: the last one begins, the first one ends
    // what is shared.
    TokenRange shared = {chunk.Seen(chunk.begin + end - 1).begin,
                         chunk.Seen(chunk.begin + begin).end};
    shared.end = std::max(shared.begin, shared.end);
    for (int query = begin; query < end; ++query) {
      std::fill_n(chunk.State(query), chunk.walk->head_dim, 0.0f);
      const TokenRange seen = chunk.Seen(chunk.begin + query);
      const int64_t before = std::min(shared.begin, seen.end);
      if (seen.begin < before) {
        ValueTiles<Pages, 1>(chunk, query, {{seen.begin, before}});
      }
    }
    if (shared.begin < shared.end) {
      ValueTiles<Pages>(chunk, begin, end - begin, shared);
    }
    for (int query = begin; query < end; ++query) {
      const TokenRange seen = chunk.Seen(chunk.begin + query);
      if (seen.end > shared.end) {
        ValueTiles<Pages, 1>(chunk, query, {{shared.end, seen.end}});
      }
    }
  }
}

template <class Pages>
void WalkChunk(const ChunkWalk& chunk) {
  ComputeScores<Pages>(chunk);
  for (int query = 0; query < chunk.count(); ++query) {
    Softmax(chunk, query);
    if constexpr (Pages::kScaled) ScaleWeights<Pages>(chunk, query);
  }
  SumValues<Pages>(chunk);
}

void WalkFloatItem(const Walk& walk, const WalkScratch& scratch,
                   float* states) {
  auto walk_chunk = WalkChunk<F32Pages>;
  if (walk.page.dtype == KvDtype::kF16) walk_chunk = WalkChunk<F16Pages>;
  if (walk.page.dtype == KvDtype::kBf16) walk_chunk = WalkChunk<Bf16Pages>;
  if (walk.page.dtype == KvDtype::kFp8E4m3) walk_chunk = WalkChunk<Fp8Pages>;
  WalkChunks(walk, scratch, ScaleQueries, walk_chunk, states);
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {

HWY_EXPORT(WalkFloatItem);

void WalkFloatPages(const Walk& walk, const WalkScratch& scratch,
                    float* states) {
  HWY_DYNAMIC_DISPATCH(WalkFloatItem)(walk, scratch, states);
}

}  // namespace headcount
#endif  // HWY_ONCE
