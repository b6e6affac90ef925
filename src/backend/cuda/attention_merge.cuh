// How the parts of a row's result come together: an unfinished result is the
// weighted sum of values, the highest score (in units of log 2) and the sum of
// weights under it.
#pragma once

#include "backend/cuda/activation.cuh"

namespace headcount::cuda {

// Index in params.out of element 0 of result `result`: of row result /
// num_queries of the item, query result % num_queries.
template <int kHeadDim>
DEVICE int64_t OutputIndex(const AttentionParams& params,
                           const AttentionItem& item, const AttentionHead& head,
                           int result) {
  const int row = item.row + result / head.num_queries;
  const int query = head.first_query + result % head.num_queries;
  return row * params.out_stride + static_cast<int64_t>(query) * kHeadDim;
}

// Index of the unfinished result of a split.
DEVICE int64_t PartialIndex(const AttentionItem& item,
                            const AttentionHead& head, int split, int result) {
  return item.first_partial +
         static_cast<int64_t>(split) * item.num_rows * head.num_queries +
         result;
}

// Joins the splits of results [begin, end) and writes them. `factors` are what
// the sums of the splits are multiplied with, [result - begin][num_splits].
template <int kHeadDim>
DEVICE void JoinSplits(const AttentionParams& params, const AttentionItem& item,
                       const AttentionHead& head, int begin, int end,
                       const float* factors) {
  // A thread has so many loads on their way at a time: the latency of one is
  // most of what the joining takes.
  constexpr int kBatch = 8;
  constexpr int kVectors = kHeadDim / 4;
  const int64_t stride =
      static_cast<int64_t>(item.num_rows) * head.num_queries * kHeadDim;
  for (int i = begin * kVectors + static_cast<int>(threadIdx.x);
       i < end * kVectors; i += static_cast<int>(blockDim.x)) {
    const int result = i / kVectors;
    const int element = i % kVectors * 4;
    const float* from = params.partial_sums +
                        PartialIndex(item, head, 0, result) * kHeadDim +
                        element;
    const float* of_result = factors + (result - begin) * item.num_splits;
    float sums[4] = {0, 0, 0, 0};
    for (int split = 0; split < item.num_splits; split += kBatch) {
      ptx::Float4 parts[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const int last = item.num_splits - 1;
        const int at = split + j < last ? split + j : last;
        parts[j] = ptx::LoadGlobalFloat4(from + at * stride);
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        const float factor =
            split + j < item.num_splits ? of_result[split + j] : 0.0f;
        sums[0] += factor * parts[j].x;
        sums[1] += factor * parts[j].y;
        sums[2] += factor * parts[j].z;
        sums[3] += factor * parts[j].w;
      }
    }
    const int64_t to =
        OutputIndex<kHeadDim>(params, item, head, result) + element;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      StoreActivation(sums[j], params.activation, to + j, params.out);
    }
  }
}

// Fills the factors of all results whose place in shared memory is `factors`:
// [result][num_splits]. A warp takes a result.
DEVICE void MakeFactors(const AttentionParams& params,
                        const AttentionItem& item, const AttentionHead& head,
                        int begin, int end, float* factors) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int result = begin + static_cast<int>(threadIdx.x) / 32; result < end;
       result += static_cast<int>(blockDim.x) / 32) {
    float* of_result = factors + (result - begin) * item.num_splits;
    float highest = -INFINITY;
    float weight = 0;
    for (int split = lane; split < item.num_splits; split += 32) {
      const float* from =
          params.partial_weights + 2 * PartialIndex(item, head, split, result);
      const float score = ptx::LoadGlobal(from);
      const float part = ptx::LoadGlobal(from + 1);
      const float most = fmaxf(highest, score);
      // Both are -inf where the splits so far saw nothing.
      if (most > -INFINITY) {
        weight =
            weight * ptx::Exp2(highest - most) + part * ptx::Exp2(score - most);
      }
      highest = most;
      of_result[split] = score;
    }
    float most = highest;
#pragma unroll
    for (int x = 1; x < 32; x *= 2) {
      most = fmaxf(most, __shfl_xor_sync(0xFFFFFFFFu, most, x));
    }
    weight *= highest > -INFINITY ? ptx::Exp2(highest - most) : 0;
#pragma unroll
    for (int x = 1; x < 32; x *= 2) {
      weight += __shfl_xor_sync(0xFFFFFFFFu, weight, x);
    }
    for (int split = lane; split < item.num_splits; split += 32) {
      of_result[split] = ptx::Exp2(of_result[split] - most) / weight;
    }
  }
}

// Called by all threads of a block when it has written its part of a split
// item. The block that comes last joins the parts and writes the output; the
// counter is 0 again afterwards. `flag` and the `room` for factors are in
// shared memory.
template <int kHeadDim>
DEVICE void FinishSplit(const AttentionParams& params,
                        const AttentionItem& item, const AttentionHead& head,
                        int* flag, float* room, int room_bytes) {
  __syncthreads();
  if (threadIdx.x == 0) {
    // What the block has written comes before its arrival.
    __threadfence();
    int32_t* counter = params.counters + item.counter;
    *flag = atomicAdd(counter, 1) == item.num_splits - 1;
    if (*flag) {
      *counter = 0;
      __threadfence();
    }
  }
  __syncthreads();
  if (!*flag) return;
  const int results = item.num_rows * head.num_queries;
  const int fitting =
      room_bytes / (item.num_splits * static_cast<int>(sizeof(float)));
  const int step = fitting < results ? fitting : results;
  for (int begin = 0; begin < results; begin += step) {
    const int end = begin + step < results ? begin + step : results;
    MakeFactors(params, item, head, begin, end, room);
    __syncthreads();
    JoinSplits<kHeadDim>(params, item, head, begin, end, room);
    __syncthreads();
  }
}

}  // namespace headcount::cuda
