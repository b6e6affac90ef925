// The kernel that writes keys and values; see kv_write.cuh.
#pragma once

#include <cstdint>

#include "backend/cuda/kernel.h"
#include "backend/cuda/kv_write_work.h"

namespace headcount::cuda {

// Grid: KvWriteGrid blocks.
Kernel<KvWriteParams> FindKvWriteKernel();
int64_t KvWriteGrid(const KvWriteParams& params);

}  // namespace headcount::cuda
