#include "tests/gpu/sweep.h"

namespace headcount::gpu {
namespace {

constexpr uint32_t kScales = 0x20002000;  // two halves of 2^-7

__global__ void Fill(uint32_t* words, int64_t count, int64_t page_words,
                     int64_t scales_at, uint32_t keep, uint32_t set) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < count; i += stride) {
    // The finaliser of MurmurHash3.
    auto x = static_cast<uint32_t>(i) * 2654435761u;
    x = (x ^ x >> 16) * 0x85EBCA6Bu;
    x = (x ^ x >> 13) * 0xC2B2AE35u;
    x = ((x ^ x >> 16) & keep) | set;
    words[i] = i % page_words < scales_at ? x : kScales;
  }
}

__global__ void Read(const uint4* from, int64_t count, uint32_t* out) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  uint32_t sum = 0;
  for (; i + 3 * stride < count; i += 4 * stride) {
    const uint4 a = from[i];
    const uint4 b = from[i + stride];
    const uint4 c = from[i + 2 * stride];
    const uint4 d = from[i + 3 * stride];
    sum += a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w;
    sum += c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
  }
  for (; i < count; i += stride) {
    const uint4 a = from[i];
    sum += a.x ^ a.y ^ a.z ^ a.w;
  }
  atomicAdd(out, sum);
}

}  // namespace

void FillPages(void* memory, int64_t bytes, int64_t page_bytes,
               int64_t scales_at, uint32_t keep, uint32_t set) {
  Fill<<<1024, 256>>>(static_cast<uint32_t*>(memory), bytes / 4, page_bytes / 4,
                      scales_at / 4, keep, set);
}

void ReadOnce(const void* memory, int64_t bytes, uint32_t* out,
              cudaStream_t stream) {
  Read<<<132 * 16, 512, 0, stream>>>(static_cast<const uint4*>(memory),
                                     bytes / 16, out);
}

}  // namespace headcount::gpu
