// Sums and maxima over the threads of a warp or a block, in an order that does
// not depend on when they run.
#pragma once

#include <cstdint>

#include "backend/cuda/ptx.h"

namespace headcount::cuda {

template <class T, class Combine>
DEVICE T WarpReduce(T value, Combine&& combine) {
#pragma unroll
  for (int x = 1; x < 32; x *= 2) {
    value = combine(value, __shfl_xor_sync(0xFFFFFFFFu, value, x));
  }
  return value;
}

DEVICE float WarpSum(float value) {
  return WarpReduce(value, [](float a, float b) { return a + b; });
}
DEVICE float WarpMax(float value) {
  return WarpReduce(value, [](float a, float b) { return fmaxf(a, b); });
}

// Of a block of kThreads threads, all of which call this and get the result.
// shared: [kThreads / 32], which nobody else uses meanwhile.
template <int kThreads, class T, class Combine>
DEVICE T BlockReduce(T value, T* shared, Combine&& combine) {
  const auto thread = static_cast<int>(threadIdx.x);
  value = WarpReduce(value, combine);
  __syncthreads();  // what was in `shared` has been read
  if (thread % 32 == 0) shared[thread / 32] = value;
  __syncthreads();
  value = shared[0];
  for (int i = 1; i < kThreads / 32; ++i) value = combine(value, shared[i]);
  return value;
}

}  // namespace headcount::cuda
