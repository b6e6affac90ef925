// What a benchmark needs of the device besides the kernels that it times.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace headcount::gpu {

// Fills `bytes` with pages of random, finite numbers: `page_bytes` each, of
// which those from `scales_at` on are scales. Words are masked with `keep` and
// joined with `set`.
void FillPages(void* memory, int64_t bytes, int64_t page_bytes,
               int64_t scales_at, uint32_t keep, uint32_t set);

// Reads `bytes` once, as fast as the device can; the sum of the words goes to
// `*out`.
void ReadOnce(const void* memory, int64_t bytes, uint32_t* out,
              cudaStream_t stream);

}  // namespace headcount::gpu
