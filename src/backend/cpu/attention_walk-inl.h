// What both kernels of attention_walk.h share: chunks, softmax and states;
// compiled once for each target.
#if defined(HEADCOUNT_BACKEND_CPU_ATTENTION_WALK_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef HEADCOUNT_BACKEND_CPU_ATTENTION_WALK_INL_H_
#undef HEADCOUNT_BACKEND_CPU_ATTENTION_WALK_INL_H_
#else
#define HEADCOUNT_BACKEND_CPU_ATTENTION_WALK_INL_H_
#endif

#include <algorithm>
#include <cmath>

#include "backend/cpu/attention_walk.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

constexpr int kStep = static_cast<int>(kLanes);
constexpr int kTokenVectors = kBlockTokens / kStep;
constexpr int kAccumulators = kManyRegisters ? 24 : 12;

// Blocks between the values in use and those being fetched from memory.
constexpr int64_t kValueBlocksAhead = 4;

constexpr int PowerOfTwoBelow(int n) { return n >= 4 ? 4 : n >= 2 ? 2 : 1; }

struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;

  TokenRange From(int64_t token) const { return {begin - token, end - token}; }
};

// Queries [begin, end) of an item, and the chunk that they are walking: all of
// it, or as much as the item has of it.
struct ChunkWalk {
  const Walk* walk = nullptr;
  int begin = 0;
  int end = 0;
  int64_t token = 0;   // first of the chunk
  int64_t length = 0;  // tokens of the chunk
  WalkScratch scratch;

  int count() const { return end - begin; }
  int64_t blocks() const { return (length + kBlockTokens - 1) / kBlockTokens; }
  // What query `i` of the walk sees of the chunk. Both ends rise with `i`.
  TokenRange Seen(int i) const {
    const int64_t position = walk->first_position + i / walk->num_queries;
    const int64_t first = walk->retention.FirstSeen(position);
    return {std::clamp<int64_t>(first - token, 0, length),
            std::clamp<int64_t>(position + 1 - token, 0, length)};
  }
  template <class T>
  const T* Page(int64_t block, int64_t page_offset) const {
    return reinterpret_cast<const T*>(
        walk->arena + walk->blocks[token / kBlockTokens + block] + page_offset);
  }
  // The block `distance` after this one, to be fetched from memory meanwhile;
  // near the end of the item one that is there already.
  int64_t Ahead(int64_t block, int64_t distance) const {
    const int64_t last = (walk->kv_end - 1 - token) / kBlockTokens;
    return std::min(block + distance, last);
  }
  float* Scores(int64_t block, int query) const {
    return scratch.scores + (block * kMaxQueries + query) * kBlockTokens;
  }
  const uint16_t* Scales(int64_t block, int64_t page_offset) const {
    return Page<uint16_t>(block, page_offset);
  }
  float* State(int query) const {
    return scratch.chunk + query * StateSize(walk->head_dim);
  }
};

// First query of tile `i` of `tiles`, as equal as can be.
HWY_INLINE int TileBegin(int count, int i, int tiles) {
  return count * i / tiles;
}

// Those tokens of vector `v` of a block that are in `seen`.
HWY_INLINE hn::Mask<F32> SeenLanes(int v, TokenRange seen) {
  const F32 d;
  const VF32 index = hn::Iota(d, static_cast<float>(v * kStep));
  const VF32 begin = hn::Set(d, static_cast<float>(seen.begin));
  const VF32 end = hn::Set(d, static_cast<float>(seen.end));
  return hn::And(hn::Ge(index, begin), hn::Lt(index, end));
}

// Vector `v` of a block's numbers, 0 where they are not `seen`.
HWY_INLINE VF32 ZeroUnseen(VF32 numbers, int v, TokenRange seen) {
  if (seen.begin <= 0 && seen.end >= kBlockTokens) return numbers;
  return hn::IfThenElseZero(SeenLanes(v, seen), numbers);
}

// Vector `v` of a block's scores, of which those in `seen` count.
HWY_INLINE VF32 LoadScores(const float* from, int v, TokenRange seen) {
  const F32 d;
  const VF32 scores = hn::LoadU(d, from + v * kStep);
  if (seen.begin <= 0 && seen.end >= kBlockTokens) return scores;
  return hn::IfThenElse(SeenLanes(v, seen), scores, hn::Set(d, -HUGE_VALF));
}

// Makes weights 2^(score - highest) of the scores of one query, in place, and
// notes the highest score and the sum of weights.
inline void Softmax(const ChunkWalk& chunk, int query) {
  const F32 d;
  // Blocks of which something is seen.
  const TokenRange seen = chunk.Seen(chunk.begin + query);
  const int64_t first = seen.begin / kBlockTokens;
  const int64_t last =
      seen.begin < seen.end ? (seen.end - 1) / kBlockTokens : first - 1;
  VF32 highest[kTokenVectors];
  VF32 sum[kTokenVectors];
#pragma GCC unroll 16
  for (int v = 0; v < kTokenVectors; ++v) {
    highest[v] = hn::Set(d, -HUGE_VALF);
    sum[v] = hn::Zero(d);
  }
  for (int64_t block = first; block <= last; ++block) {
    const float* from = chunk.Scores(block, query);
    const TokenRange here = seen.From(block * kBlockTokens);
#pragma GCC unroll 16
    for (int v = 0; v < kTokenVectors; ++v) {
      highest[v] = hn::Max(highest[v], LoadScores(from, v, here));
    }
  }
  HWY_ALIGN float lanes[kBlockTokens];
#pragma GCC unroll 16
  for (int v = 0; v < kTokenVectors; ++v) {
    hn::Store(highest[v], d, lanes + v * kStep);
  }
  const float max = Max16(lanes);
  const VF32 shift = hn::Set(d, max);
  for (int64_t block = first; block <= last; ++block) {
    float* to = chunk.Scores(block, query);
    const TokenRange here = seen.From(block * kBlockTokens);
#pragma GCC unroll 16
    for (int v = 0; v < kTokenVectors; ++v) {
      const VF32 weight = Exp2(d, hn::Sub(LoadScores(to, v, here), shift));
      hn::StoreU(weight, d, to + v * kStep);
      sum[v] = hn::Add(sum[v], weight);
    }
  }
#pragma GCC unroll 16
  for (int v = 0; v < kTokenVectors; ++v) {
    hn::Store(sum[v], d, lanes + v * kStep);
  }
  float* state = chunk.State(query) + chunk.walk->head_dim;
  state[0] = max;
  state[1] = Sum16(lanes);
}

// state = state joined with the later `part`.
inline void JoinStates(const float* HWY_RESTRICT part, int head_dim,
                       float* HWY_RESTRICT state) {
  if (part[head_dim + 1] == 0) return;
  if (state[head_dim + 1] == 0) {
    std::copy_n(part, StateSize(head_dim), state);
    return;
  }
  const hn::CappedTag<float, 8> d;
  const hn::CappedTag<float, 1> d1;
  const float max = std::max(state[head_dim], part[head_dim]);
  const float a = hn::GetLane(Exp2(d1, hn::Set(d1, state[head_dim] - max)));
  const float b = hn::GetLane(Exp2(d1, hn::Set(d1, part[head_dim] - max)));
  for (int i = 0; i < head_dim; i += static_cast<int>(hn::Lanes(d))) {
    const auto scaled = hn::Mul(hn::LoadU(d, part + i), hn::Set(d, b));
    hn::StoreU(hn::MulAdd(hn::LoadU(d, state + i), hn::Set(d, a), scaled), d,
               state + i);
  }
  state[head_dim] = max;
  state[head_dim + 1] = state[head_dim + 1] * a + part[head_dim + 1] * b;
}

// Makes states of which no token was seen.
inline void ClearStates(const Walk& walk, float* states) {
  for (int i = 0; i < walk.total_queries(); ++i) {
    states[i * StateSize(walk.head_dim) + walk.head_dim + 1] = 0;
  }
}

// Walks an item: `walk_chunk` computes the State of every query of a chunk.
// Before the first one, `begin_queries` is called for each kMaxQueries queries.
template <class BeginQueries, class WalkChunk>
HWY_INLINE void WalkChunks(const Walk& walk, const WalkScratch& scratch,
                           const BeginQueries& begin_queries,
                           const WalkChunk& walk_chunk, float* states) {
  const int total = walk.total_queries();
  ClearStates(walk, states);
  for (int begin = 0; begin < total; begin += kMaxQueries) {
    ChunkWalk chunk{.walk = &walk,
                    .begin = begin,
                    .end = std::min(begin + kMaxQueries, total),
                    .scratch = scratch};
    begin_queries(chunk);
    for (chunk.token = walk.kv_begin; chunk.token < walk.kv_end;
         chunk.token += chunk.length) {
      // To the next multiple.
      chunk.length =
          std::min(walk.chunk_tokens - chunk.token % walk.chunk_tokens,
                   walk.kv_end - chunk.token);
      walk_chunk(chunk);
      for (int query = 0; query < chunk.count(); ++query) {
        JoinStates(chunk.State(query), walk.head_dim,
                   states + (begin + query) * StateSize(walk.head_dim));
      }
    }
  }
}

// The final result of a state. out: [head_dim]
inline void FinishState(const float* HWY_RESTRICT state, int head_dim,
                        float* HWY_RESTRICT out) {
  const float inverse = 1.0f / state[head_dim + 1];
  for (int i = 0; i < head_dim; ++i) out[i] = state[i] * inverse;
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#endif  // the per-target guard
