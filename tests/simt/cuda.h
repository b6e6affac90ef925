// The words of CUDA that kernels use, for a compiler that does not know them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/simt/simt.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __constant__ static
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__

#define threadIdx (::headcount::simt::ThreadIndex())
#define blockIdx (::headcount::simt::BlockIndex())
#define blockDim (::headcount::simt::BlockSize())
#define gridDim (::headcount::simt::GridSize())

namespace headcount::simt {

const Dim3& ThreadIndex();
const Dim3& BlockIndex();
const Dim3& BlockSize();
const Dim3& GridSize();
unsigned char* SharedMemory();

namespace internal {

void SyncThreads(Where where);
void SyncWarp(uint32_t mask, Where where);
uint32_t Ballot(uint32_t mask, bool vote, const char* name, Where where);
// What the lane `source` of `mask` gives as `value`.
uint64_t Shuffle(uint32_t mask, uint64_t value, int source, const char* name,
                 Where where);
int Lane();

template <typename T>
T ShuffleValue(uint32_t mask, T value, int source, const char* name,
               Where where) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  return std::bit_cast<T>(static_cast<Bits>(
      Shuffle(mask, std::bit_cast<Bits>(value), source, name, where)));
}

}  // namespace internal
}  // namespace headcount::simt

using dim3 = headcount::simt::Dim3;

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline void __syncthreads(
    headcount::simt::Where where = headcount::simt::Where::Here()) {
  headcount::simt::internal::SyncThreads(where);
}

inline void __syncwarp(
    uint32_t mask = ~0u,
    headcount::simt::Where where = headcount::simt::Where::Here()) {
  headcount::simt::internal::SyncWarp(mask, where);
}

// Shuffles of the whole warp: no `width`.
template <typename T>
T __shfl_sync(uint32_t mask, T value, int lane,
              headcount::simt::Where where = headcount::simt::Where::Here()) {
  return headcount::simt::internal::ShuffleValue(mask, value, lane & 31,
                                                 "__shfl_sync", where);
}

template <typename T>
T __shfl_xor_sync(
    uint32_t mask, T value, int lanes,
    headcount::simt::Where where = headcount::simt::Where::Here()) {
  return headcount::simt::internal::ShuffleValue(
      mask, value, headcount::simt::internal::Lane() ^ (lanes & 31),
      "__shfl_xor_sync", where);
}

template <typename T>
T __shfl_down_sync(
    uint32_t mask, T value, unsigned lanes,
    headcount::simt::Where where = headcount::simt::Where::Here()) {
  const int lane = headcount::simt::internal::Lane();
  const int source = lane + static_cast<int>(lanes & 31);
  return headcount::simt::internal::ShuffleValue(
      mask, value, source < 32 ? source : lane, "__shfl_down_sync", where);
}

template <typename T>
T __shfl_up_sync(
    uint32_t mask, T value, unsigned lanes,
    headcount::simt::Where where = headcount::simt::Where::Here()) {
  const int lane = headcount::simt::internal::Lane();
  const int source = lane - static_cast<int>(lanes & 31);
  return headcount::simt::internal::ShuffleValue(
      mask, value, source >= 0 ? source : lane, "__shfl_up_sync", where);
}

inline uint32_t __ballot_sync(
    uint32_t mask, bool vote,
    headcount::simt::Where where = headcount::simt::Where::Here()) {
  return headcount::simt::internal::Ballot(mask, vote, "__ballot_sync", where);
}

inline bool __any_sync(
    uint32_t mask, bool vote,
    headcount::simt::Where where = headcount::simt::Where::Here()) {
  return headcount::simt::internal::Ballot(mask, vote, "__any_sync", where) !=
         0;
}

inline bool __all_sync(
    uint32_t mask, bool vote,
    headcount::simt::Where where = headcount::simt::Where::Here()) {
  return headcount::simt::internal::Ballot(mask, vote, "__all_sync", where) ==
         mask;
}

// Blocks and threads run in turn, and only change where they wait. Atomics are
// no races, so plain_accesses.cc is not to see them.
#define HEADCOUNT_SIMT_ATOMIC __attribute__((no_sanitize("thread")))

template <typename T>
HEADCOUNT_SIMT_ATOMIC T atomicAdd(T* sum, std::type_identity_t<T> value) {
  const T before = *sum;
  *sum = before + value;
  return before;
}

template <typename T>
HEADCOUNT_SIMT_ATOMIC T atomicMax(T* most, std::type_identity_t<T> value) {
  const T before = *most;
  if (value > before) *most = value;
  return before;
}

template <typename T>
HEADCOUNT_SIMT_ATOMIC T atomicExch(T* place, std::type_identity_t<T> value) {
  const T before = *place;
  *place = value;
  return before;
}

template <typename T>
HEADCOUNT_SIMT_ATOMIC T atomicCAS(T* place, std::type_identity_t<T> expected,
                                  std::type_identity_t<T> value) {
  const T before = *place;
  if (before == expected) *place = value;
  return before;
}

inline void __threadfence() {}
inline void __threadfence_block() {}

inline uint32_t __float_as_uint(float value) {
  return std::bit_cast<uint32_t>(value);
}
inline float __uint_as_float(uint32_t bits) {
  return std::bit_cast<float>(bits);
}
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline float rsqrtf(float value) { return 1.0f / std::sqrt(value); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float value) { return std::exp(value); }
inline float __logf(float value) { return std::log(value); }
inline int __popc(uint32_t bits) { return std::popcount(bits); }
inline int __clz(int bits) {
  return std::countl_zero(static_cast<uint32_t>(bits));
}
inline int __ffs(int bits) {
  return bits == 0 ? 0 : std::countr_zero(static_cast<uint32_t>(bits)) + 1;
}
template <typename T>
T __ldg(const T* pointer) {
  return *pointer;
}

#define HEADCOUNT_SHARED(name) \
  unsigned char* const name = ::headcount::simt::SharedMemory()
