#include "backend/cuda/kv_write.cuh"
#include "backend/cuda/kv_write.h"

namespace headcount::cuda {

Kernel<KvWriteParams> FindKvWriteKernel() {
  return {.kernel = RotateAndWriteKv, .threads = kKvWriteThreads};
}

// A warp is a head of a row.
int64_t KvWriteGrid(const KvWriteParams& params) {
  constexpr int kWarps = kKvWriteThreads / 32;
  const int64_t heads = params.queries + 2 * params.kv_heads;
  return (params.rows * heads + kWarps - 1) / kWarps;
}

}  // namespace headcount::cuda
