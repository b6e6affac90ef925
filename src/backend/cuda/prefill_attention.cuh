// Attention of many query rows over the pages of their sequence: prompts, and
// chunks of them behind what is cached already.
//
// The rows of a tile are (query row, query head) pairs of one KV head, so that
// a page that was copied to shared memory serves the whole ragged group. As in
// FlashAttention-2 (Dao 2023, arXiv:2307.08691), each warp keeps the scores and
// the result of its rows in registers and walks the tokens once. Bulk copies
// (cp.async below sm_90) bring the next tokens meanwhile.
#pragma once

#include "backend/cuda/activation.cuh"
#include "backend/cuda/attention_merge.cuh"
#include "backend/cuda/page_tile.cuh"

namespace headcount::cuda {

// How a prefill kernel is cut.
template <class Page_>
struct PrefillShape {
  using Page = Page_;
  static constexpr bool kLargeHead = Page::kHeadDim > 128;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  // 16-row tiles of a warp.
  static constexpr int kTiles = kLargeHead ? 1 : 2;
  static constexpr int kRows = kWarps * kTiles * 16;
  // Of a step over the tokens.
  static constexpr int kPages = kLargeHead ? 2 : 4;
  static constexpr int kTokens = kPages * kBlockTokens;
  static constexpr int kStages = 2;
  static constexpr int kStageBytes = kPages * Page::kBytes;
  // Queries are 16-bit, whatever the pages hold.
  static constexpr int kQueryRowBytes = Page::kElements * 2;
  static constexpr int kQueriesOffset = kStages * kStageBytes;
  static constexpr int kFlagOffset = kQueriesOffset + kRows * kQueryRowBytes;
  static constexpr int kBarriersOffset = kFlagOffset + 8;
  static constexpr int kSharedBytes =
      kBarriersOffset + kStages * static_cast<int>(sizeof(uint64_t));
};

// The steps over the tokens of an item, copied kStages ahead for all warps.
template <class Shape, bool kBulk>
class StepStream {
 public:
  using Page = typename Shape::Page;

  DEVICE StepStream(const AttentionParams& params, const AttentionItem& item,
                    const AttentionHead& head, unsigned char* shared)
      : arena_(params.arena),
        blocks_(params.blocks + item.block_begin),
        page_offset_(head.page_offset),
        token_(item.kv_begin),
        kv_end_(item.kv_end),
        page_bytes_(StoredBytes<Page>(params)),
        stages_(shared),
        filled_(
            reinterpret_cast<ptx::Barrier*>(shared + Shape::kBarriersOffset)),
        thread_(static_cast<int>(threadIdx.x)) {
    if constexpr (kBulk) {
      if (thread_ == 0) {
        for (int i = 0; i < Shape::kStages; ++i) {
          ptx::BarrierInit(&filled_[i], 1);
        }
        ptx::FenceBarrierInit();
      }
      __syncthreads();
    }
    FindPage();
    ptx::GridDependencyWait();
    ptx::GridDependencyLaunch();
    for (int i = 0; i < Shape::kStages; ++i) Issue();
  }

  // Waits for the next step. All threads.
  DEVICE unsigned char* Next() {
    const int stage = reads_ % Shape::kStages;
    if constexpr (kBulk) {
      ptx::BarrierWait(&filled_[stage], reads_ / Shape::kStages % 2);
    } else {
      ptx::CpAsyncWait<Shape::kStages - 1>();
      __syncthreads();
    }
    ++reads_;
    return stages_ + stage * Shape::kStageBytes;
  }

  // Says that the step was read, and fetches another in its place. All threads.
  DEVICE void Release() {
    __syncthreads();
    Issue();
  }

 private:
  // Where this lane's page of the step to be issued next lies.
  DEVICE void FindPage() {
    const int token = token_ + thread_ % 32 * kBlockTokens;
    if (thread_ % 32 < Shape::kPages && token < kv_end_) {
      page_ = blocks_[token / kBlockTokens] + page_offset_;
    }
  }

  DEVICE void Issue() {
    if (token_ < kv_end_) {
      const int stage = issued_ % Shape::kStages;
      unsigned char* to = stages_ + stage * Shape::kStageBytes;
      const int left = (kv_end_ - token_ + kBlockTokens - 1) / kBlockTokens;
      const int pages = left < Shape::kPages ? left : Shape::kPages;
      if constexpr (kBulk) {
        if (thread_ < 32) {
          if (thread_ == 0) {
            ptx::BarrierExpectBytes(&filled_[stage], pages * page_bytes_);
          }
          __syncwarp();
          if (thread_ < pages) {
            ptx::BulkCopy(to + thread_ * Page::kBytes, arena_ + page_,
                          page_bytes_, &filled_[stage]);
          }
        }
      } else {
        CopyPages(to, pages);
      }
      token_ += Shape::kTokens;
      FindPage();
    }
    if constexpr (!kBulk) ptx::CpAsyncCommit();
    ++issued_;
  }

  DEVICE void CopyPages(unsigned char* to, int pages) {
    for (int i = 0; i < pages; ++i) {
      const std::byte* from = arena_ + __shfl_sync(0xFFFFFFFFu, page_, i);
      for (int byte = thread_ * kChunkBytes; byte < page_bytes_;
           byte += Shape::kThreads * kChunkBytes) {
        ptx::CpAsync16(to + i * Page::kBytes + byte, from + byte);
      }
    }
  }

  const std::byte* arena_;
  const int64_t* blocks_;
  int64_t page_offset_;
  int token_;  // of the step to be issued next
  int kv_end_;
  int page_bytes_;
  unsigned char* stages_;
  ptx::Barrier* filled_;
  int thread_;
  int issued_ = 0;  // steps
  int reads_ = 0;
  int64_t page_ = 0;
};

// The rows of a warp. A lane holds rows lane / 4 and lane / 4 + 8 of each tile.
template <class Shape>
class PrefillState {
 public:
  using Page = typename Shape::Page;

  DEVICE PrefillState(const AttentionParams& params, const AttentionItem& item,
                      const AttentionHead& head, int warp, int lane)
      : group_(lane / 4),
        pair_(lane % 4),
        lane_(lane),
        first_row_(warp * Shape::kTiles * 16),
        window_(item.window),
        kv_end_(item.kv_end),
        token_scales_(params.token_scales),
        score_scale_(params.score_scale * head.k_scale) {
    const int results = item.num_rows * head.num_queries;
    const auto position = [&](int row) {
      const int last = row < results ? row : results - 1;
      return params.causal ? item.position + last / head.num_queries
                           : item.kv_end - 1;
    };
    first_position_ = position(first_row_);
    last_position_ = position(first_row_ + Shape::kTiles * 16 - 1);
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        position_[m][half] = position(Row(m, half));
        highest_[m][half] = -INFINITY;
        weight_[m][half] = 0;
      }
#pragma unroll
      for (int i = 0; i < kValueTiles; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums_[m][i][e] = 0;
      }
    }
  }

  // Adds the tokens of a step that begins at `token`.
  DEVICE void Add(const unsigned char* queries, const unsigned char* step,
                  int token) {
    const int end = token + Shape::kTokens;
    if (token > last_position_ ||
        (window_ > 0 && end <= first_position_ + 1 - window_)) {
      return;
    }
    float scores[Shape::kTiles][2 * Shape::kPages][4];
    Score(queries, step, scores);
    if (end > first_position_ + 1 || end > kv_end_ ||
        (window_ > 0 && token < last_position_ + 1 - window_)) {
      Mask(token, scores);
    }
    Soften(scores);
#pragma unroll
    for (int page = 0; page < Shape::kPages; ++page) {
      if (token + page * kBlockTokens < kv_end_) {
        SumValues(step + page * Page::kBytes, page,
                  kv_end_ - token - page * kBlockTokens, scores);
      }
    }
  }

  // Writes the rows that exist: results, or the parts of a split.
  DEVICE void Write(const AttentionParams& params, const AttentionItem& item,
                    const AttentionHead& head) {
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float weight = weight_[m][half];
        weight += __shfl_xor_sync(0xFFFFFFFFu, weight, 1);
        weight += __shfl_xor_sync(0xFFFFFFFFu, weight, 2);
        const int row = Row(m, half);
        if (row >= item.num_rows * head.num_queries) continue;
        if (item.split < 0) {
          WriteRow(params, m, half, head.v_scale / weight,
                   OutputIndex<Page::kHeadDim>(params, item, head, row));
        } else {
          WritePartial(params, m, half, head.v_scale, weight,
                       PartialIndex(item, head, item.split, row));
        }
      }
    }
  }

 private:
  static constexpr int kValueTiles = 2 * Page::kSteps;

  DEVICE int Row(int tile, int half) const {
    return first_row_ + tile * 16 + half * 8 + group_;
  }

  DEVICE void Score(const unsigned char* queries, const unsigned char* step,
                    float (&scores)[Shape::kTiles][2 * Shape::kPages][4]) {
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
#pragma unroll
      for (int n = 0; n < 2 * Shape::kPages; ++n) {
        scores[m][n][0] = scores[m][n][1] = 0;
        scores[m][n][2] = scores[m][n][3] = 0;
      }
    }
    const ChunkPair<Page::kRowBytes> keys(lane_ % 8 + lane_ / 16 * 8,
                                          lane_ / 8 % 2 != 0);
#pragma unroll
    for (int chunk = 0; chunk < Page::kChunks; chunk += 2) {
      // Tokens 0-7 of the chunk and of the next, then tokens 8-15 of both.
      uint32_t words[Shape::kPages][4];
#pragma unroll
      for (int page = 0; page < Shape::kPages; ++page) {
        ptx::LdMatrixX4(words[page],
                        step + page * Page::kBytes + keys.Offset(chunk));
      }
      if constexpr (KvDtypeBits(Page::kDtype) == 16) {
        uint32_t q[Shape::kTiles][4];
        LoadQueries(queries, chunk / 2, q);
#pragma unroll
        for (int page = 0; page < Shape::kPages; ++page) {
          const uint32_t upper[2] = {words[page][0], words[page][1]};
          const uint32_t lower[2] = {words[page][2], words[page][3]};
#pragma unroll
          for (int m = 0; m < Shape::kTiles; ++m) {
            Multiply<Page::kDtype>(scores[m][2 * page], q[m], upper);
            Multiply<Page::kDtype>(scores[m][2 * page + 1], q[m], lower);
          }
        }
      } else {
#pragma unroll
        for (int next = 0; next < 2; ++next) {
          if (chunk + next < Page::kChunks) {
            ScoreCodes(queries, words, chunk, next, scores);
          }
        }
      }
    }
    if constexpr (IsQuantized(Page::kDtype)) {
      if (token_scales_) ScaleTokens(step, scores);
    }
  }

  DEVICE void LoadQueries(const unsigned char* queries, int step,
                          uint32_t (&q)[Shape::kTiles][4]) {
    constexpr int kTileBytes = 16 * Shape::kQueryRowBytes;
    const ChunkPair<Shape::kQueryRowBytes> rows(lane_ % 16, lane_ / 16 != 0);
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
      ptx::LdMatrixX4(q[m], queries + (first_row_ / 16 + m) * kTileBytes +
                                rows.Offset(2 * step));
    }
  }

  DEVICE void ScoreCodes(const unsigned char* queries,
                         const uint32_t (&words)[Shape::kPages][4], int chunk,
                         int next,
                         float (&scores)[Shape::kTiles][2 * Shape::kPages][4]) {
    using Codes = KeyCodes<Page::kDtype>;
    constexpr int kSteps = Codes::kSteps / 2;
    uint32_t q[kSteps][Shape::kTiles][4];
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      LoadQueries(queries, (chunk + next) * kSteps + i, q[i]);
    }
#pragma unroll
    for (int page = 0; page < Shape::kPages; ++page) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t low[2], high[2];
        Codes::Decode(words[page][2 * half + next], low, high);
#pragma unroll
        for (int i = 0; i < kSteps; ++i) {
          const uint32_t key[2] = {low[i], high[i]};
#pragma unroll
          for (int m = 0; m < Shape::kTiles; ++m) {
            Multiply<Page::kDtype>(scores[m][2 * page + half], q[i][m], key);
          }
        }
      }
    }
  }

  DEVICE void ScaleTokens(
      const unsigned char* step,
      float (&scores)[Shape::kTiles][2 * Shape::kPages][4]) {
#pragma unroll
    for (int n = 0; n < 2 * Shape::kPages; ++n) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const float scale = TokenScale<Page>(step + n / 2 * Page::kBytes, 0,
                                             n % 2 * 8 + pair_ * 2 + odd);
#pragma unroll
        for (int m = 0; m < Shape::kTiles; ++m) {
          scores[m][n][odd] *= scale;
          scores[m][n][2 + odd] *= scale;
        }
      }
    }
  }

  DEVICE void Mask(int token,
                   float (&scores)[Shape::kTiles][2 * Shape::kPages][4]) {
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int position = position_[m][half];
        const int first = window_ > 0 ? position + 1 - window_ : 0;
        const int last = position < kv_end_ ? position : kv_end_ - 1;
#pragma unroll
        for (int n = 0; n < 2 * Shape::kPages; ++n) {
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) {
            const int at = token + n * 8 + pair_ * 2 + odd;
            if (at > last || at < first) {
              scores[m][n][2 * half + odd] = -INFINITY;
            }
          }
        }
      }
    }
  }

  // Moves the state to the highest score so far, and makes weights of scores.
  DEVICE void Soften(float (&scores)[Shape::kTiles][2 * Shape::kPages][4]) {
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = highest_[m][half];
#pragma unroll
        for (int n = 0; n < 2 * Shape::kPages; ++n) {
          highest = fmaxf(highest, fmaxf(scores[m][n][2 * half],
                                         scores[m][n][2 * half + 1]));
        }
        highest = fmaxf(highest, __shfl_xor_sync(0xFFFFFFFFu, highest, 1));
        highest = fmaxf(highest, __shfl_xor_sync(0xFFFFFFFFu, highest, 2));
        // A row that has seen nothing yet weighs nothing.
        const float base = highest == -INFINITY ? 0 : highest * score_scale_;
        const float factor = ptx::Exp2(highest_[m][half] * score_scale_ - base);
        highest_[m][half] = highest;
        float weight = weight_[m][half] * factor;
#pragma unroll
        for (int n = 0; n < 2 * Shape::kPages; ++n) {
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) {
            float& score = scores[m][n][2 * half + odd];
            score = ptx::Exp2(fmaf(score, score_scale_, -base));
            weight += score;
          }
        }
        weight_[m][half] = weight;
#pragma unroll
        for (int i = 0; i < kValueTiles; ++i) {
          sums_[m][i][2 * half] *= factor;
          sums_[m][i][2 * half + 1] *= factor;
        }
      }
    }
  }

  // `seen`: tokens of the page that were written, if fewer than it holds.
  DEVICE void SumValues(
      const unsigned char* page, int index, int seen,
      const float (&scores)[Shape::kTiles][2 * Shape::kPages][4]) {
    float scales[2][2] = {{1, 1}, {1, 1}};
    if (IsQuantized(Page::kDtype) && token_scales_) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
          const int token = half * 8 + pair_ * 2 + odd;
          scales[half][odd] =
              token < seen ? TokenScale<Page>(page, 1, token) : 0.0f;
        }
      }
    }
    uint32_t weights[Shape::kTiles][4];
#pragma unroll
    for (int m = 0; m < Shape::kTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // rows 0-7, 8-15; then tokens 8-15
        const float(&from)[4] = scores[m][2 * index + i / 2];
        weights[m][i] =
            PackOperand<Page::kDtype>(from[i % 2 * 2] * scales[i / 2][0],
                                      from[i % 2 * 2 + 1] * scales[i / 2][1]);
      }
    }
    using Codes = ValueCodes<Page::kDtype>;
    const ChunkPair<Page::kRowBytes> values(lane_ % 16, lane_ / 16 != 0);
#pragma unroll
    for (int chunk = 0; chunk < Page::kChunks; chunk += 2) {
      // Tokens 0-7, 8-15 of the chunk, then of the next.
      uint32_t words[4];
      ptx::LdMatrixX4Trans(words,
                           page + Page::kTensorBytes + values.Offset(chunk));
#pragma unroll
      for (int next = 0; next < 2; ++next) {
        if (chunk + next < Page::kChunks) {
          uint32_t early[Codes::kElements], late[Codes::kElements];
          Codes::Decode(words[2 * next], early);
          Codes::Decode(words[2 * next + 1], late);
#pragma unroll
          for (int i = 0; i < Codes::kElements; ++i) {
            const uint32_t pair[2] = {early[i], late[i]};
#pragma unroll
            for (int m = 0; m < Shape::kTiles; ++m) {
              Multiply<Page::kDtype>(
                  sums_[m][(chunk + next) * Codes::kElements + i], weights[m],
                  pair);
            }
          }
        }
      }
    }
  }

  DEVICE void WriteRow(const AttentionParams& params, int tile, int half,
                       float scale, int64_t to) {
#pragma unroll
    for (int i = 0; i < kValueTiles; ++i) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const int element = ValueElement<Page::kDtype>(i, pair_ * 2 + odd);
        if (element < Page::kHeadDim) {
          StoreActivation(sums_[tile][i][2 * half + odd] * scale,
                          params.activation, to + element, params.out);
        }
      }
    }
  }

  DEVICE void WritePartial(const AttentionParams& params, int tile, int half,
                           float scale, float weight, int64_t partial) {
#pragma unroll
    for (int i = 0; i < kValueTiles; ++i) {
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const int element = ValueElement<Page::kDtype>(i, pair_ * 2 + odd);
        if (element < Page::kHeadDim) {
          params.partial_sums[partial * Page::kHeadDim + element] =
              sums_[tile][i][2 * half + odd] * scale;
        }
      }
    }
    if (pair_ == 0) {
      params.partial_weights[2 * partial] = highest_[tile][half] * score_scale_;
      params.partial_weights[2 * partial + 1] = weight;
    }
  }

  int group_;
  int pair_;
  int lane_;
  int first_row_;  // of the item's (row, query) pairs
  int window_;
  int kv_end_;
  bool token_scales_;
  float score_scale_;
  int first_position_;  // of the warp's rows
  int last_position_;
  int position_[Shape::kTiles][2];
  float highest_[Shape::kTiles][2];  // before score_scale_
  float weight_[Shape::kTiles][2];   // of the tokens that this lane saw
  float sums_[Shape::kTiles][kValueTiles][4];
};

// Copies the queries of an item to shared memory, in the order of the products.
// Rows that the item does not have are 0.
template <class Shape, class Elements>
DEVICE void StoreQueries(const Elements& q, const AttentionParams& params,
                         const AttentionItem& item, const AttentionHead& head,
                         unsigned char* queries) {
  using Page = typename Shape::Page;
  constexpr int kEights = Page::kElements / 8;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kRows * kEights;
       i += Shape::kThreads) {
    const int row = i / kEights;
    const int eight = i % kEights;
    float values[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (row < item.num_rows * head.num_queries && eight * 8 < Page::kHeadDim) {
      q.LoadEight(
          (item.row + row / head.num_queries) * params.q_stride +
              static_cast<int64_t>(head.first_query + row % head.num_queries) *
                  Page::kHeadDim +
              eight * 8,
          values);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int place = QueryPairPlace<Page::kDtype>(eight, j);
      const int first = FirstOfPair<Page::kDtype>(j);
      const int offset =
          row / 16 * (16 * Shape::kQueryRowBytes) +
          PageChunkOffset(Shape::kQueryRowBytes, row % 16, place / 4) +
          place % 4 * 4;
      *reinterpret_cast<uint32_t*>(queries + offset) =
          PackOperand<Page::kDtype>(
              values[first], values[first + PairDistance<Page::kDtype>()]);
    }
  }
}

// Grid: one block an item; Shape::kThreads threads and Shape::kSharedBytes of
// dynamic shared memory. Items have at most Shape::kRows (row, query) pairs.
template <class Shape, bool kWantBulk>
__global__ void __launch_bounds__(Shape::kThreads)
    PrefillAttention(const __grid_constant__ AttentionParams params) {
  using Page = typename Shape::Page;
  constexpr bool kBulk = kWantBulk && ptx::kHasBulkCopy;
  HEADCOUNT_SHARED(shared);
  unsigned char* queries = shared + Shape::kQueriesOffset;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const AttentionItem item = params.items[blockIdx.x];
  const AttentionHead head = params.heads[item.head];
  StepStream<Shape, kBulk> stream(params, item, head, shared);
  WithElements(params.q, params.activation, [&](auto elements) {
    StoreQueries<Shape>(elements, params, item, head, queries);
  });
  PrefillState<Shape> state(params, item, head, warp, lane);
  __syncthreads();
  for (int token = item.kv_begin; token < item.kv_end;
       token += Shape::kTokens) {
    unsigned char* step = stream.Next();
    const int page = (item.kv_end - token) / kBlockTokens;
    const int seen = (item.kv_end - token) % kBlockTokens;
    if (page < Shape::kPages && seen > 0) {
      ZeroValueRows<Page>(step + page * Page::kBytes, seen,
                          static_cast<int>(threadIdx.x), Shape::kThreads);
      __syncthreads();
    }
    state.Add(queries, step, token);
    stream.Release();
  }
  state.Write(params, item, head);
  if (item.split >= 0) {
    FinishSplit<Page::kHeadDim>(
        params, item, head, reinterpret_cast<int*>(shared + Shape::kFlagOffset),
        reinterpret_cast<float*>(shared), Shape::kQueriesOffset);
  }
}

}  // namespace headcount::cuda
