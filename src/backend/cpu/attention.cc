// An item is walked chunk by chunk. For a chunk: scores of all its tokens,
// softmax over them, then the weighted sum of values; chunks are joined from
// left to right. All three steps hold a tile of results in registers, with the
// (row, query head) pairs of the item ("queries" below) in one direction and 16
// tokens, or some elements of the head, in the other: so a key or value that
// was loaded serves the whole ragged group and all rows.
//
// No result depends on its neighbours in a tile. A query's numbers are made by
// the same chain of operations wherever it stands, and its chain goes from the
// first token that it sees to the last: nothing unseen is multiplied by zero.
#include "backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

#include "base/check.h"
#include "hwy/cache_control.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

#ifndef HEADCOUNT_BACKEND_CPU_ATTENTION_TYPES
#define HEADCOUNT_BACKEND_CPU_ATTENTION_TYPES
namespace headcount {

// Queries whose scores of a chunk are held at a time.
inline constexpr int kMaxQueries = 48;

inline constexpr int kMaxHeadDim = 256;
// From one query to the next; a little more, so that they do not compete for
// the same cache sets.
inline constexpr int kQueryStride = kMaxHeadDim + 16;

// An unfinished result: [head_dim] the weighted sum of values, then the highest
// score (in units of log 2) and the sum of weights; a sum of 0 says that no
// token was seen.
constexpr int64_t StateSize(int64_t head_dim) { return head_dim + 2; }

// A work item with its addresses.
struct Walk {
  int head_dim = 0;
  int num_queries = 0;  // of the group: query i is row i / num_queries
  int num_rows = 0;
  int64_t first_position = 0;  // of the first row
  Retention retention;
  int64_t kv_begin = 0;  // a multiple of kBlockTokens
  int64_t kv_end = 0;
  int64_t chunk_tokens = 0;
  const float* q = nullptr;  // of the first row
  int64_t q_stride = 0;      // elements from one row to the next
  KvPage page;
  const std::byte* arena = nullptr;
  const int64_t* blocks = nullptr;  // of the sequence, in the arena

  int total_queries() const { return num_rows * num_queries; }
};

// What a worker needs to walk; sizes in floats.
struct WalkScratch {
  float* q = nullptr;       // [kMaxQueries][kQueryStride]
  float* scores = nullptr;  // [chunk blocks][kMaxQueries][kBlockTokens]
  float* chunk = nullptr;   // [kMaxQueries] states

  static int64_t Size(int64_t head_dim, int64_t chunk_tokens) {
    return kMaxQueries * (kQueryStride + chunk_tokens + StateSize(head_dim));
  }
  static WalkScratch In(float* memory, int64_t chunk_tokens) {
    WalkScratch scratch;
    scratch.q = memory;
    scratch.scores = scratch.q + kMaxQueries * kQueryStride;
    scratch.chunk = scratch.scores + kMaxQueries * chunk_tokens;
    return scratch;
  }
};

}  // namespace headcount
#endif

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

constexpr int kStep = static_cast<int>(kLanes);
constexpr int kTokenVectors = kBlockTokens / kStep;
constexpr int kAccumulators = kManyRegisters ? 24 : 12;

constexpr int PowerOfTwoBelow(int n) { return n >= 4 ? 4 : n >= 2 ? 2 : 1; }

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
  float* State(int query) const {
    return scratch.chunk + query * StateSize(walk->head_dim);
  }
};

// First query of tile `i` of `tiles`, as equal as can be.
HWY_INLINE int TileBegin(int count, int i, int tiles) {
  return count * i / tiles;
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
                        query % walk.num_queries * walk.head_dim;
    float* to = chunk.scratch.q + i * kQueryStride;
    for (int k = 0; k < walk.head_dim; k += static_cast<int>(hn::Lanes(d))) {
      hn::StoreU(hn::Mul(hn::LoadU(d, from + k), scale), d, to + k);
    }
  }
}

// Scores of R queries against B blocks. GCC keeps an array in registers only
// where the loops over it are unrolled early.
template <class T, int R, int B>
HWY_NOINLINE void ScoreTile(const ChunkWalk& chunk, int query, int64_t block) {
  const F32 d;
  const T* k[B];
  const T* next[B];
  for (int b = 0; b < B; ++b) {
    k[b] = chunk.Page<T>(block + b, chunk.walk->page.k_offset);
    next[b] =
        chunk.Page<T>(chunk.Ahead(block + b, B), chunk.walk->page.k_offset);
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
  const int head_dim = chunk.walk->head_dim;
  for (int i = 0; i < head_dim; ++i) {
    VF32 key[B][kTokenVectors];
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) {
      hwy::Prefetch(next[b] + i * kBlockTokens);
#pragma GCC unroll 16
      for (int v = 0; v < kTokenVectors; ++v) {
        key[b][v] = LoadFloats(d, k[b] + i * kBlockTokens + v * kStep);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const VF32 value = hn::Set(d, q[r * kQueryStride + i]);
#pragma GCC unroll 16
      for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
        for (int v = 0; v < kTokenVectors; ++v) {
          sum[r][b][v] = hn::MulAdd(key[b][v], value, sum[r][b][v]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 16
      for (int v = 0; v < kTokenVectors; ++v) {
        hn::StoreU(sum[r][b][v], d,
                   chunk.Scores(block + b, query + r) + v * kStep);
      }
    }
  }
}

template <class T, int R = kMaxScoreQueries>
HWY_INLINE void ScoreTiles(const ChunkWalk& chunk, int query, int queries,
                           int64_t block, int blocks) {
  if (queries == R) {
    constexpr int kBlocks = ScoreBlocks(R);
    if (blocks == kBlocks) {
      return ScoreTile<T, R, kBlocks>(chunk, query, block);
    }
    for (int b = 0; b < blocks; ++b) {
      ScoreTile<T, R, 1>(chunk, query, block + b);
    }
    return;
  }
  if constexpr (R > 1) {
    ScoreTiles<T, R - 1>(chunk, query, queries, block, blocks);
  }
}

// All scores of the chunk. Blocks outside, so that keys are read once.
template <class T>
void ComputeScores(const ChunkWalk& chunk) {
  const int count = chunk.count();
  const int tiles = (count + kMaxScoreQueries - 1) / kMaxScoreQueries;
  const int step = ScoreBlocks((count + tiles - 1) / tiles);
  const int64_t blocks = chunk.blocks();
  for (int64_t block = 0; block < blocks; block += step) {
    const int taken = static_cast<int>(std::min<int64_t>(step, blocks - block));
    for (int tile = 0; tile < tiles; ++tile) {
      const int begin = TileBegin(count, tile, tiles);
      ScoreTiles<T>(chunk, begin, TileBegin(count, tile + 1, tiles) - begin,
                    block, taken);
    }
  }
}

// Vector `v` of a block's scores, of which those in `seen` count.
HWY_INLINE VF32 LoadScores(const float* from, int v, TokenRange seen) {
  const F32 d;
  const VF32 scores = hn::LoadU(d, from + v * kStep);
  if (seen.begin <= 0 && seen.end >= kBlockTokens) return scores;
  const VF32 index = hn::Iota(d, static_cast<float>(v * kStep));
  const VF32 begin = hn::Set(d, static_cast<float>(seen.begin));
  const VF32 end = hn::Set(d, static_cast<float>(seen.end));
  return hn::IfThenElse(hn::And(hn::Ge(index, begin), hn::Lt(index, end)),
                        scores, hn::Set(d, -HUGE_VALF));
}

// Makes weights 2^(score - highest) of the scores of one query, in place, and
// notes the highest score and the sum of weights.
void Softmax(const ChunkWalk& chunk, int query) {
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

struct ValueRange {
  TokenRange tokens;
  int element = 0;  // and those after it
};

// Blocks between the values in use and those being fetched from memory.
constexpr int64_t kValueBlocksAhead = 4;

// Adds weighted values to the states of R queries: N vectors of D elements.
template <class T, int R, int N, class D>
HWY_NOINLINE void ValueTile(D d, const ChunkWalk& chunk, int query,
                            const ValueRange& range) {
  constexpr int kWidth = static_cast<int>(hn::MaxLanes(D()));
  const int head_dim = chunk.walk->head_dim;
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
    const int64_t end =
        std::min<int64_t>((block + 1) * kBlockTokens, range.tokens.end);
    const int slot = static_cast<int>(token % kBlockTokens);
    const int64_t offset = int64_t{slot} * head_dim + range.element;
    const T* HWY_RESTRICT value = chunk.Page<T>(block, page_offset) + offset;
    const T* next =
        chunk.Page<T>(chunk.Ahead(block, kValueBlocksAhead), page_offset) +
        offset;
    const float* HWY_RESTRICT weight = chunk.Scores(block, query) + slot;
    for (; token < end; ++token) {
      hn::Vec<D> elements[N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        if (n % 2 == 0) hwy::Prefetch(next + n * kWidth);
        elements[n] = LoadFloats(d, value + n * kWidth);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const auto w = hn::Set(d, weight[r * kBlockTokens]);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
          sum[r][n] = hn::MulAdd(elements[n], w, sum[r][n]);
        }
      }
      value += head_dim;
      next += head_dim;
      ++weight;
    }
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
template <class T, int R>
void ValueTiles(const ChunkWalk& chunk, int query, ValueRange range) {
  const F32 d;
  constexpr int kWidth = kStep;
  constexpr int kVectors = ValueVectors(R);
  const int head_dim = chunk.walk->head_dim;
  int& element = range.element;
  for (; element + kVectors * kWidth <= head_dim;
       element += kVectors * kWidth) {
    ValueTile<T, R, kVectors>(d, chunk, query, range);
  }
  if constexpr (kVectors > 2) {
    if (element + 2 * kWidth <= head_dim) {
      ValueTile<T, R, 2>(d, chunk, query, range);
      element += 2 * kWidth;
    }
  }
  if (element + kWidth <= head_dim) {
    ValueTile<T, R, 1>(d, chunk, query, range);
    element += kWidth;
  }
  if (element < head_dim) {  // half a vector of 16
    ValueTile<T, R, 1>(hn::CappedTag<float, 8>(), chunk, query, range);
  }
}

template <class T, int R = kMaxValueQueries>
HWY_INLINE void ValueTiles(const ChunkWalk& chunk, int query, int queries,
                           TokenRange tokens) {
  if (queries == R) return ValueTiles<T, R>(chunk, query, {tokens});
  if constexpr (R > 1) {
    ValueTiles<T, R - 1>(chunk, query, queries, tokens);
  }
}

// The weighted sum of values, for all queries: tokens that all of a tile see in
// one go, those before and after them query by query.
template <class T>
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
        ValueTiles<T, 1>(chunk, query, {{seen.begin, before}});
      }
    }
    if (shared.begin < shared.end) {
      ValueTiles<T>(chunk, begin, end - begin, shared);
    }
    for (int query = begin; query < end; ++query) {
      const TokenRange seen = chunk.Seen(chunk.begin + query);
      if (seen.end > shared.end) {
        ValueTiles<T, 1>(chunk, query, {{shared.end, seen.end}});
      }
    }
  }
}

// state = state joined with the later `part`.
void JoinStates(const float* HWY_RESTRICT part, int head_dim,
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

// The final result of a state. out: [head_dim]
void FinishState(const float* HWY_RESTRICT state, int head_dim,
                 float* HWY_RESTRICT out) {
  const float inverse = 1.0f / state[head_dim + 1];
  for (int i = 0; i < head_dim; ++i) out[i] = state[i] * inverse;
}

template <class T>
void WalkChunk(const ChunkWalk& chunk, float* states) {
  const int head_dim = chunk.walk->head_dim;
  ComputeScores<T>(chunk);
  for (int query = 0; query < chunk.count(); ++query) Softmax(chunk, query);
  SumValues<T>(chunk);
  for (int query = 0; query < chunk.count(); ++query) {
    JoinStates(chunk.State(query), head_dim,
               states + (chunk.begin + query) * StateSize(head_dim));
  }
}

// Computes the states of all queries of an item.
void WalkItem(const Walk& walk, const WalkScratch& scratch, float* states) {
  const int total = walk.total_queries();
  for (int i = 0; i < total; ++i) {
    states[i * StateSize(walk.head_dim) + walk.head_dim + 1] = 0;
  }
  for (int begin = 0; begin < total; begin += kMaxQueries) {
    ChunkWalk chunk{.walk = &walk,
                    .begin = begin,
                    .end = std::min(begin + kMaxQueries, total),
                    .scratch = scratch};
    ScaleQueries(chunk);
    for (chunk.token = walk.kv_begin; chunk.token < walk.kv_end;
         chunk.token += chunk.length) {
      // To the next multiple.
      chunk.length =
          std::min(walk.chunk_tokens - chunk.token % walk.chunk_tokens,
                   walk.kv_end - chunk.token);
      if (walk.page.dtype == KvDtype::kF32) {
        WalkChunk<float>(chunk, states);
      } else {
        WalkChunk<hwy::float16_t>(chunk, states);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {
namespace {

HWY_EXPORT(WalkItem);
HWY_EXPORT(JoinStates);
HWY_EXPORT(FinishState);

// Scores x elements below which one thread walks all items.
constexpr int64_t kMinParallelWork = int64_t{1} << 16;

// One layer's attention in one step.
class LayerAttention {
 public:
  LayerAttention(const AttentionOperands& operands,
                 AttentionWorkspace* workspace, ThreadPool* pool)
      : operands_(operands),
        step_(*operands.step),
        layer_(*operands.layer),
        plan_(step_.inputs.plans[static_cast<size_t>(layer_.layer_class)]),
        workspace_(*workspace),
        pool_(*pool) {
    const auto queries = static_cast<int64_t>(layer_.heads->query_heads.size());
    const auto kv_heads = static_cast<int64_t>(layer_.heads->kv_heads.size());
    out_stride_ = queries * layer_.head_dim;
    qkv_stride_ = out_stride_ + 2 * kv_heads * layer_.head_dim;
  }

  void Run() {
    const int64_t work = PrepareWorkspace();
    const auto items = static_cast<int64_t>(plan_.items.size());
    if (work < kMinParallelWork) {
      for (int64_t i = 0; i < items; ++i) RunItem(i, 0);
    } else {
      pool_.Run(items, [&](int64_t i, int worker) { RunItem(i, worker); });
    }
    pool_.Run(static_cast<int64_t>(plan_.merges.size()),
              [&](int64_t i, int /*worker*/) { RunMerge(i); });
  }

 private:
  const KvHead& Head(int32_t kv_slot) const {
    return layer_.heads->kv_heads[static_cast<size_t>(kv_slot)];
  }

  // Returns the work of the plan.
  int64_t PrepareWorkspace() {
    int64_t work = 0;
    int64_t most_queries = 0;
    for (const WorkItem& item : plan_.items) {
      const int64_t queries =
          int64_t{item.num_rows} * Head(item.kv_slot).num_queries;
      most_queries = std::max(most_queries, queries);
      work += queries * (item.kv_end - item.kv_begin) * layer_.head_dim;
    }
    const int64_t state = StateSize(layer_.head_dim);
    states_offset_ = WalkScratch::Size(layer_.head_dim, plan_.chunk_tokens);
    const auto scratch =
        static_cast<size_t>(states_offset_ + most_queries * state);
    workspace_.scratch.resize(static_cast<size_t>(pool_.threads()));
    for (std::vector<float>& worker : workspace_.scratch) {
      if (worker.size() < scratch) worker.resize(scratch);
    }
    const auto partials = static_cast<size_t>(plan_.num_partials * state);
    if (workspace_.partials.size() < partials) {
      workspace_.partials.resize(partials);
    }
    return work;
  }

  Walk MakeWalk(const WorkItem& item) const {
    const KvHead& head = Head(item.kv_slot);
    const auto group = static_cast<size_t>(head.group);
    const StepSequence& sequence =
        step_.inputs.sequences[static_cast<size_t>(item.sequence)];
    Walk walk;
    walk.head_dim = layer_.head_dim;
    walk.num_queries = head.num_queries;
    walk.num_rows = item.num_rows;
    walk.first_position = sequence.past + (item.first_row - sequence.first_row);
    walk.retention = head.retention;
    walk.kv_begin = item.kv_begin;
    walk.kv_end = item.kv_end;
    walk.chunk_tokens = plan_.chunk_tokens;
    walk.q = operands_.qkv + item.first_row * qkv_stride_ +
             int64_t{head.first_query} * layer_.head_dim;
    walk.q_stride = qkv_stride_;
    walk.page = layer_.geometries[group].page(layer_.layer, item.kv_slot);
    walk.arena = static_cast<const std::byte*>(operands_.arena);
    walk.blocks =
        step_.inputs.block_offsets.data() + sequence.block_begin[group];
    return walk;
  }

  void RunItem(int64_t index, int worker) {
    const WorkItem& item = plan_.items[static_cast<size_t>(index)];
    float* scratch = workspace_.scratch[static_cast<size_t>(worker)].data();
    float* states = scratch + states_offset_;
    if (item.partial >= 0) states = Partial(item.partial);
    HWY_DYNAMIC_DISPATCH(WalkItem)
    (MakeWalk(item), WalkScratch::In(scratch, plan_.chunk_tokens), states);
    if (item.partial < 0) {
      Finish(item.kv_slot, item.first_row, item.num_rows, states);
    }
  }

  void RunMerge(int64_t index) {
    const MergeItem& merge = plan_.merges[static_cast<size_t>(index)];
    const int64_t queries =
        int64_t{merge.num_rows} * Head(merge.kv_slot).num_queries;
    float* states = Partial(merge.first_partial);
    for (int64_t split = 1; split < merge.num_splits; ++split) {
      for (int64_t query = 0; query < queries; ++query) {
        HWY_DYNAMIC_DISPATCH(JoinStates)
        (Partial(merge.first_partial + split * queries + query),
         layer_.head_dim, states + query * StateSize(layer_.head_dim));
      }
    }
    Finish(merge.kv_slot, merge.first_row, merge.num_rows, states);
  }

  float* Partial(int64_t slot) {
    return workspace_.partials.data() + slot * StateSize(layer_.head_dim);
  }

  void Finish(int32_t kv_slot, int32_t first_row, int32_t num_rows,
              const float* states) {
    const KvHead& head = Head(kv_slot);
    for (int32_t row = first_row; row < first_row + num_rows; ++row) {
      float* out = operands_.out + row * out_stride_ +
                   int64_t{head.first_query} * layer_.head_dim;
      for (int query = 0; query < head.num_queries; ++query) {
        HWY_DYNAMIC_DISPATCH(FinishState)(states, layer_.head_dim, out);
        states += StateSize(layer_.head_dim);
        out += layer_.head_dim;
      }
    }
  }

  const AttentionOperands& operands_;
  const StepState& step_;
  const AttentionLayer& layer_;
  const AttentionPlan& plan_;
  AttentionWorkspace& workspace_;
  ThreadPool& pool_;
  int64_t out_stride_ = 0;
  int64_t qkv_stride_ = 0;
  int64_t states_offset_ = 0;
};

}  // namespace

void Attention(const AttentionOperands& operands, AttentionWorkspace* workspace,
               ThreadPool* pool) {
  const int head_dim = operands.layer->head_dim;
  CHECK(head_dim > 0 && head_dim <= kMaxHeadDim && head_dim % 8 == 0)
      << "head_dim " << head_dim;
  LayerAttention(operands, workspace, pool).Run();
}

}  // namespace headcount
#endif  // HWY_ONCE
