// Attention of one query row over the pages of its sequence: a step's decoding
// sequences, long or short, with any number of query heads on a KV head.
//
// Products are turned around ("swap AB"): tokens are the 16 rows of an mma,
// query heads its 8 columns, so that a ragged group of 1 to 8 heads fills a
// tile as well as it can and a page is read once for all of them:
//
//   S^T [16 tokens x 8 heads]   = K [16 x head_dim]   Q^T
//   O^T [head_dim x 8 heads]   += V^T                 P^T [16 tokens x 8 heads]
//
// Warps work on their own: each has a ring of page buffers that bulk copies
// (cp.async below sm_90) fill, its own online softmax (Milakov & Gimelshein
// 2018, arXiv:1805.02867), and takes every kWarps-th tile of an item; they meet
// once an item to join their results. Copies run ahead across the ends of
// items. A block walks a list of items that the host cut to equal cost, so one
// grid of fixed size serves any batch, and a captured graph stays valid. Of a
// sequence that is split, the block that finishes last joins the parts
// (Dao et al. 2023, "Flash-Decoding"): nothing waits for another block.
#pragma once

#include "backend/cuda/activation.cuh"
#include "backend/cuda/attention_merge.cuh"
#include "backend/cuda/page_tile.cuh"

namespace headcount::cuda {

// How a decode kernel is cut. kColumns: query heads of an item at most, 8 or
// 16.
template <class Page_, int kColumns_>
struct DecodeShape {
  using Page = Page_;
  static constexpr int kColumns = kColumns_;
  static constexpr int kTiles = kColumns / 8;
  // About 8 KiB a stage, and 96 KiB a block: two blocks on an SM of sm_90, one
  // on those of sm_86 and sm_89.
  static constexpr int kPages = Page::kBytes > 6000   ? 1
                                : Page::kBytes > 3000 ? 2
                                : Page::kBytes > 1500 ? 4
                                                      : 8;
  static constexpr int kTokens = kPages * kBlockTokens;
  static constexpr int kStageBytes = kPages * Page::kBytes;
  static constexpr int kWarps = kStageBytes > 12000 ? 2 : 4;
  static constexpr int kThreads = kWarps * 32;
  // On an SM at least. More fit where rings are small, but a thread would have
  // too few registers to keep its sums in.
  static constexpr int kBlocks = 2;
  static constexpr int kStages = 3;
  static constexpr int kRingBytes = kStages * kStageBytes;
  // After the rings: [warp][column][2] weights, [warp] where the sums are, a
  // flag, and the barriers of the rings.
  static constexpr int kWeightsOffset = kWarps * kRingBytes;
  static constexpr int kPlacesOffset =
      kWeightsOffset + kWarps * kColumns * 2 * static_cast<int>(sizeof(float));
  static constexpr int kFlagOffset = kPlacesOffset + 4 * kWarps;
  static constexpr int kBarriersOffset = (kFlagOffset + 4 + 7) / 8 * 8;
  static constexpr int kSharedBytes =
      kBarriersOffset + kWarps * kStages * static_cast<int>(sizeof(uint64_t));
  // A warp leaves its result in the stage that it read last.
  static_assert(kColumns * Page::kElements * static_cast<int>(sizeof(float)) <=
                kStageBytes);
};

// The tiles of all items of a block that one warp reads, in order, copied to
// its ring kStages - 1 tiles ahead.
template <class Shape, bool kBulk>
class TileStream {
 public:
  using Page = typename Shape::Page;

  DEVICE TileStream(const AttentionParams& params, unsigned char* shared,
                    int warp, int lane)
      : params_(params),
        ring_(shared + warp * Shape::kRingBytes),
        filled_(
            reinterpret_cast<ptx::Barrier*>(shared + Shape::kBarriersOffset) +
            warp * Shape::kStages),
        warp_(warp),
        lane_(lane),
        item_(params.worker_begin[blockIdx.x]),
        items_end_(params.worker_begin[blockIdx.x + 1]),
        page_bytes_(StoredBytes<Page>(params)) {
    if constexpr (kBulk) {
      if (lane == 0) {
        for (int i = 0; i < Shape::kStages; ++i) {
          ptx::BarrierInit(&filled_[i], 1);
        }
        ptx::FenceBarrierInit();
      }
      __syncwarp();
    }
    if (item_ < items_end_) OpenItem();
    SkipItems();
    ptx::GridDependencyWait();
    ptx::GridDependencyLaunch();
    for (int i = 0; i < Shape::kStages - 1; ++i) Issue();
  }

  // Starts the copy of a tile into the stage that was read last, and waits for
  // the next one to be read.
  DEVICE unsigned char* Next() {
    Issue();
    const int stage = reads_ % Shape::kStages;
    if constexpr (kBulk) {
      ptx::BarrierWait(&filled_[stage], reads_ / Shape::kStages % 2);
    } else {
      ptx::CpAsyncWait<Shape::kStages - 1>();
      __syncwarp();
    }
    ++reads_;
    return ring_ + stage * Shape::kStageBytes;
  }

  // The stage that was read last: free until Next.
  DEVICE unsigned char* Free() const {
    return ring_ +
           (reads_ + Shape::kStages - 1) % Shape::kStages * Shape::kStageBytes;
  }

 private:
  DEVICE void OpenItem() {
    const AttentionItem& item = params_.items[item_];
    kv_end_ = item.kv_end;
    token_ = item.kv_begin + warp_ * Shape::kTokens;
    blocks_ = params_.blocks + item.block_begin;
    page_offset_ = params_.heads[item.head].page_offset;
  }

  // Goes on to the next item with a tile for this warp, if there is one, and
  // fetches where the lane's page of it lies, so that Issue need not wait.
  DEVICE void SkipItems() {
    while (token_ >= kv_end_ && item_ + 1 < items_end_) {
      ++item_;
      OpenItem();
    }
    const int token = token_ + lane_ * kBlockTokens;
    if (lane_ < Shape::kPages && token < kv_end_) {
      page_ = blocks_[token / kBlockTokens] + page_offset_;
    }
  }

  DEVICE void Issue() {
    if (token_ < kv_end_) {
      unsigned char* stage =
          ring_ + issued_ % Shape::kStages * Shape::kStageBytes;
      const int left = (kv_end_ - token_ + kBlockTokens - 1) / kBlockTokens;
      const int pages = left < Shape::kPages ? left : Shape::kPages;
      if constexpr (kBulk) {
        ptx::Barrier* barrier = &filled_[issued_ % Shape::kStages];
        if (lane_ == 0) {
          ptx::BarrierExpectBytes(barrier, pages * page_bytes_);
        }
        __syncwarp();
        if (lane_ < pages) {
          ptx::BulkCopy(stage + lane_ * Page::kBytes, params_.arena + page_,
                        page_bytes_, barrier);
        }
      } else {
        CopyPages(stage, pages);
      }
      token_ += Shape::kWarps * Shape::kTokens;
      SkipItems();
    }
    if constexpr (!kBulk) ptx::CpAsyncCommit();
    ++issued_;
  }

  DEVICE void CopyPages(unsigned char* stage, int pages) {
    for (int i = 0; i < pages; ++i) {
      const std::byte* from =
          params_.arena + __shfl_sync(0xFFFFFFFFu, page_, i);
#pragma unroll 4
      for (int byte = lane_ * kChunkBytes; byte < page_bytes_;
           byte += 32 * kChunkBytes) {
        ptx::CpAsync16(stage + i * Page::kBytes + byte, from + byte);
      }
    }
  }

  const AttentionParams& params_;
  unsigned char* ring_;
  ptx::Barrier* filled_;
  int warp_;
  int lane_;
  int item_;
  int items_end_;
  int page_bytes_;
  int issued_ = 0;  // tiles
  int reads_ = 0;
  // Of the tile to be issued next.
  int token_ = 0;
  int kv_end_ = 0;
  const int64_t* blocks_ = nullptr;
  int64_t page_offset_ = 0;
  int64_t page_ = 0;  // this lane's, in the arena
};

// The queries of an item and what a warp has made of the tokens that it saw. A
// lane holds columns 2 (lane % 4) and the next of each tile.
template <class Shape>
class DecodeState {
 public:
  using Page = typename Shape::Page;

  DEVICE void Begin(const AttentionParams& params, const AttentionItem& item,
                    const AttentionHead& head, int lane) {
    group_ = lane / 4;
    pair_ = lane % 4;
    WithElements(params.q, params.activation, [&](auto elements) {
      LoadQueries(elements, params, item, head);
    });
    score_scale_ = params.score_scale * head.k_scale;
    token_scales_ = params.token_scales;
    const int seen = item.position + 1 - item.window;
    first_seen_ = item.window > 0 && seen > 0 ? seen : 0;
    kv_end_ = item.kv_end;
#pragma unroll
    for (int n = 0; n < Shape::kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        highest_[n][e] = -INFINITY;
        weight_[n][e] = 0;
      }
#pragma unroll
      for (int i = 0; i < Page::kSteps; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums_[n][i][e] = 0;
      }
    }
  }

  // Adds the tokens of a tile that begins at `token`.
  DEVICE void Add(unsigned char* tile, int token, int lane) {
    float scores[Shape::kPages][Shape::kTiles][4];
#pragma unroll
    for (int page = 0; page < Shape::kPages; ++page) {
      const int first = token + page * kBlockTokens;
      if (first < kv_end_) {
        Score(tile + page * Page::kBytes, lane, scores[page]);
      }
      ScaleAndMask(tile + page * Page::kBytes, first, scores[page]);
    }
    Rescale(scores);
#pragma unroll
    for (int page = 0; page < Shape::kPages; ++page) {
      const int first = token + page * kBlockTokens;
      if (first < kv_end_) {
        unsigned char* bytes = tile + page * Page::kBytes;
        if (kv_end_ - first < kBlockTokens) {
          ZeroValueRows<Page>(bytes, kv_end_ - first, lane, 32);
          __syncwarp();
        }
        uint32_t weights[Shape::kTiles][2];
        Weigh(bytes, first, scores[page], weights);
        SumValues(bytes, lane, weights);
      }
    }
  }

  // Leaves the warp's result in shared memory. sums: [column][kElements];
  // weights: [column][2], the highest score and the sum of weights.
  DEVICE void Leave(float v_scale, float* sums, float* weights) {
#pragma unroll
    for (int n = 0; n < Shape::kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
#pragma unroll
        for (int x = 4; x < 32; x *= 2) {
          weight_[n][e] += __shfl_xor_sync(0xFFFFFFFFu, weight_[n][e], x);
        }
        const int column = n * 8 + pair_ * 2 + e;
        if (group_ == 0) {
          weights[column * 2] = highest_[n][e];
          weights[column * 2 + 1] = weight_[n][e];
        }
      }
#pragma unroll
      for (int i = 0; i < Page::kSteps; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = n * 8 + pair_ * 2 + e % 2;
          const int element = ValueElement<Page::kDtype>(i * 2 + e / 2, group_);
          sums[column * Page::kElements + element] = sums_[n][i][e] * v_scale;
        }
      }
    }
  }

 private:
  template <class Elements>
  DEVICE void LoadQueries(const Elements& q, const AttentionParams& params,
                          const AttentionItem& item,
                          const AttentionHead& head) {
#pragma unroll
    for (int n = 0; n < Shape::kTiles; ++n) {
      const int column = n * 8 + group_;
      const int64_t begin =
          item.row * params.q_stride +
          static_cast<int64_t>(head.first_query + column) * Page::kHeadDim;
#pragma unroll
      for (int step = 0; step < Page::kSteps; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float pair[2];
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) {
            const int element =
                QueryElement<Page::kDtype>(step, half * 8 + pair_ * 2 + odd);
            pair[odd] = column < head.num_queries && element < Page::kHeadDim
                            ? q[begin + element]
                            : 0.0f;
          }
          queries_[n][step][half] = PackOperand<Page::kDtype>(pair[0], pair[1]);
        }
      }
    }
  }

  // Unscaled scores of 16 tokens: rows group_ and group_ + 8 of each tile.
  DEVICE void Score(const unsigned char* page, int lane,
                    float (&scores)[Shape::kTiles][4]) {
#pragma unroll
    for (int n = 0; n < Shape::kTiles; ++n) {
      scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0;
    }
    const ChunkPair<Page::kRowBytes> chunks(lane % 16, lane / 16 != 0);
#pragma unroll
    for (int chunk = 0; chunk < Page::kChunks; chunk += 2) {
      uint32_t words[4];  // rows 0-7, 8-15 of the chunk, then of the next
      ptx::LdMatrixX4(words, page + chunks.Offset(chunk));
      if constexpr (KvDtypeBits(Page::kDtype) == 16) {
#pragma unroll
        for (int n = 0; n < Shape::kTiles; ++n) {
          Multiply<Page::kDtype>(scores[n], words, queries_[n][chunk / 2]);
        }
      } else {
#pragma unroll
        for (int next = 0; next < 2; ++next) {
          if (chunk + next < Page::kChunks) {
            ScoreCodes(words[2 * next], words[2 * next + 1], chunk + next,
                       scores);
          }
        }
      }
    }
  }

  DEVICE void ScoreCodes(uint32_t upper, uint32_t lower, int chunk,
                         float (&scores)[Shape::kTiles][4]) {
    using Codes = KeyCodes<Page::kDtype>;
    uint32_t upper_low[2], upper_high[2], lower_low[2], lower_high[2];
    Codes::Decode(upper, upper_low, upper_high);
    Codes::Decode(lower, lower_low, lower_high);
#pragma unroll
    for (int i = 0; i < Codes::kSteps / 2; ++i) {
      const uint32_t keys[4] = {upper_low[i], lower_low[i], upper_high[i],
                                lower_high[i]};
#pragma unroll
      for (int n = 0; n < Shape::kTiles; ++n) {
        Multiply<Page::kDtype>(scores[n], keys,
                               queries_[n][chunk * (Codes::kSteps / 2) + i]);
      }
    }
  }

  DEVICE bool Sees(int token) const {
    return token < kv_end_ && token >= first_seen_;
  }

  DEVICE void ScaleAndMask(const unsigned char* page, int first,
                           float (&scores)[Shape::kTiles][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = group_ + half * 8;
      float scale = score_scale_;
      if constexpr (IsQuantized(Page::kDtype)) {
        if (token_scales_) scale *= TokenScale<Page>(page, 0, row);
      }
      // Selected after the product: nothing is known of rows that are unseen.
#pragma unroll
      for (int n = 0; n < Shape::kTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[n][half * 2 + e];
          score = Sees(first + row) ? score * scale : -INFINITY;
        }
      }
    }
  }

  // Moves the state to the highest score so far. A tile has a token that is
  // seen, so that this is a number.
  DEVICE void Rescale(const float (&scores)[Shape::kPages][Shape::kTiles][4]) {
    float factors[Shape::kTiles][2];
    bool changed = false;
#pragma unroll
    for (int n = 0; n < Shape::kTiles; ++n) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float highest = highest_[n][e];
#pragma unroll
        for (int page = 0; page < Shape::kPages; ++page) {
          highest =
              fmaxf(highest, fmaxf(scores[page][n][e], scores[page][n][2 + e]));
        }
#pragma unroll
        for (int x = 4; x < 32; x *= 2) {
          highest = fmaxf(highest, __shfl_xor_sync(0xFFFFFFFFu, highest, x));
        }
        factors[n][e] = ptx::Exp2(highest_[n][e] - highest);
        changed |= highest != highest_[n][e];
        highest_[n][e] = highest;
      }
    }
    if (!__any_sync(0xFFFFFFFFu, changed)) return;
#pragma unroll
    for (int n = 0; n < Shape::kTiles; ++n) {
      weight_[n][0] *= factors[n][0];
      weight_[n][1] *= factors[n][1];
#pragma unroll
      for (int i = 0; i < Page::kSteps; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums_[n][i][e] *= factors[n][e % 2];
      }
    }
  }

  // From scores to the operand P^T of the value product.
  DEVICE void Weigh(const unsigned char* page, int first,
                    const float (&scores)[Shape::kTiles][4],
                    uint32_t (&weights)[Shape::kTiles][2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = group_ + half * 8;
      float scale = 1;
      if constexpr (IsQuantized(Page::kDtype)) {
        if (token_scales_) {
          scale = Sees(first + row) ? TokenScale<Page>(page, 1, row) : 0.0f;
        }
      }
#pragma unroll
      for (int n = 0; n < Shape::kTiles; ++n) {
        float weight[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          weight[e] = ptx::Exp2(scores[n][half * 2 + e] - highest_[n][e]);
          weight_[n][e] += weight[e];
          if constexpr (IsQuantized(Page::kDtype)) weight[e] *= scale;
        }
        weights[n][half] = ptx::MovMatrixTrans(
            PackOperand<Page::kDtype>(weight[0], weight[1]));
      }
    }
  }

  DEVICE void SumValues(const unsigned char* page, int lane,
                        const uint32_t (&weights)[Shape::kTiles][2]) {
    const ChunkPair<Page::kRowBytes> chunks(lane % 8 + lane / 16 * 8,
                                            lane / 8 % 2 != 0);
    const unsigned char* values = page + Page::kTensorBytes;
#pragma unroll
    for (int chunk = 0; chunk < Page::kChunks; chunk += 2) {
      // Tokens 0-7 of the chunk and of the next, then tokens 8-15 of both.
      uint32_t words[4];
      ptx::LdMatrixX4Trans(words, values + chunks.Offset(chunk));
      if constexpr (KvDtypeBits(Page::kDtype) == 16) {
#pragma unroll
        for (int n = 0; n < Shape::kTiles; ++n) {
          Multiply<Page::kDtype>(sums_[n][chunk / 2], words, weights[n]);
        }
      } else {
#pragma unroll
        for (int next = 0; next < 2; ++next) {
          if (chunk + next < Page::kChunks) {
            SumCodes(words[next], words[2 + next], chunk + next, weights);
          }
        }
      }
    }
  }

  DEVICE void SumCodes(uint32_t early, uint32_t late, int chunk,
                       const uint32_t (&weights)[Shape::kTiles][2]) {
    using Codes = ValueCodes<Page::kDtype>;
    uint32_t first[Codes::kElements], second[Codes::kElements];
    Codes::Decode(early, first);
    Codes::Decode(late, second);
#pragma unroll
    for (int i = 0; i < Codes::kElements / 2; ++i) {
      const uint32_t values[4] = {first[2 * i], first[2 * i + 1], second[2 * i],
                                  second[2 * i + 1]};
#pragma unroll
      for (int n = 0; n < Shape::kTiles; ++n) {
        Multiply<Page::kDtype>(sums_[n][chunk * (Codes::kElements / 2) + i],
                               values, weights[n]);
      }
    }
  }

  int group_;  // of four lanes: a row of tokens, or of elements of the result
  int pair_;   // in the group
  int first_seen_;
  int kv_end_;
  float score_scale_;
  bool token_scales_;
  uint32_t queries_[Shape::kTiles][Page::kSteps][2];
  float highest_[Shape::kTiles][2];
  float weight_[Shape::kTiles][2];  // of the tokens that this lane saw
  float sums_[Shape::kTiles][Page::kSteps][4];
};

// Joins what the warps have left of an item.
template <class Shape>
DEVICE void JoinWarps(const AttentionParams& params, const AttentionItem& item,
                      const AttentionHead& head, const unsigned char* shared) {
  using Page = typename Shape::Page;
  const auto* weights =
      reinterpret_cast<const float*>(shared + Shape::kWeightsOffset);
  const auto* places =
      reinterpret_cast<const int*>(shared + Shape::kPlacesOffset);
  for (int i = static_cast<int>(threadIdx.x);
       i < head.num_queries * Page::kHeadDim; i += Shape::kThreads) {
    const int column = i / Page::kHeadDim;
    const int element = i % Page::kHeadDim;
    float highest = -INFINITY;
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      highest = fmaxf(highest, weights[(w * Shape::kColumns + column) * 2]);
    }
    float weight = 0;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shape::kWarps; ++w) {
      const float* of_warp = weights + (w * Shape::kColumns + column) * 2;
      const auto* sums = reinterpret_cast<const float*>(shared + places[w]);
      const float factor = ptx::Exp2(of_warp[0] - highest);
      weight += factor * of_warp[1];
      sum += factor * sums[column * Page::kElements + element];
    }
    if (item.split < 0) {
      StoreActivation(
          sum / weight, params.activation,
          OutputIndex<Page::kHeadDim>(params, item, head, column) + element,
          params.out);
    } else {
      const int64_t partial = PartialIndex(item, head, item.split, column);
      params.partial_sums[partial * Page::kHeadDim + element] = sum;
      if (element == 0) {
        params.partial_weights[2 * partial] = highest;
        params.partial_weights[2 * partial + 1] = weight;
      }
    }
  }
}

// Grid: as many blocks as params.worker_begin has lists; Shape::kThreads
// threads and Shape::kSharedBytes of dynamic shared memory. Items have one row
// and at most Shape::kColumns queries.
template <class Shape, bool kWantBulk>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    DecodeAttention(const __grid_constant__ AttentionParams params) {
  using Page = typename Shape::Page;
  constexpr bool kBulk = kWantBulk && ptx::kHasBulkCopy;
  HEADCOUNT_SHARED(shared);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  auto* weights = reinterpret_cast<float*>(shared + Shape::kWeightsOffset) +
                  warp * Shape::kColumns * 2;
  auto* places = reinterpret_cast<int*>(shared + Shape::kPlacesOffset);
  auto* flag = reinterpret_cast<int*>(shared + Shape::kFlagOffset);
  TileStream<Shape, kBulk> stream(params, shared, warp, lane);
  const int end = params.worker_begin[blockIdx.x + 1];
  for (int i = params.worker_begin[blockIdx.x]; i < end; ++i) {
    const AttentionItem item = params.items[i];
    const AttentionHead head = params.heads[item.head];
    DecodeState<Shape> state;
    state.Begin(params, item, head, lane);
    for (int token = item.kv_begin + warp * Shape::kTokens; token < item.kv_end;
         token += Shape::kWarps * Shape::kTokens) {
      state.Add(stream.Next(), token, lane);
      __syncwarp();
    }
    unsigned char* place = stream.Free();
    if (lane == 0) places[warp] = static_cast<int>(place - shared);
    state.Leave(head.v_scale, reinterpret_cast<float*>(place), weights);
    __syncthreads();
    JoinWarps<Shape>(params, item, head, shared);
    if (item.split >= 0) {
      // The stages that held the sums are free once they are joined.
      FinishSplit<Page::kHeadDim>(params, item, head, flag,
                                  reinterpret_cast<float*>(shared + places[0]),
                                  Shape::kStageBytes);
    }
    // Copies into the stages go past what the threads have written there.
    ptx::FenceProxyAsync();
    __syncthreads();
  }
}

}  // namespace headcount::cuda
