// The attention kernels that exist, by what they are for.
#pragma once

#include "backend/cuda/attention_work.h"
#include "heads/kv_dtype.h"

namespace headcount::cuda {

// A kernel and how it is launched. `kernel` is null where there is none.
struct AttentionKernel {
  void (*kernel)(const AttentionParams) = nullptr;
  int threads = 0;
  int shared_bytes = 0;
  // Decode: query heads of an item at most. Prefill: (row, query) pairs.
  int max_queries = 0;
};

// Decode kernels take 8 or 16 queries an item, and the narrower one is cheaper;
// of a head dimension of 256 there is only that. Compiled for sm_90 and later,
// kernels fetch pages by bulk copies, below by cp.async; `bulk` = false asks
// the emulator for the latter.
AttentionKernel FindDecodeKernel(KvDtype dtype, int head_dim, int queries,
                                 bool bulk = true);
AttentionKernel FindPrefillKernel(KvDtype dtype, int head_dim,
                                  bool bulk = true);

}  // namespace headcount::cuda
