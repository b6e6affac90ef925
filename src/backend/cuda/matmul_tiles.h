// Products of many rows, in tiles of outputs and rows: PlanMatMul chooses them.
#pragma once

#include <cstdint>

#include "backend/cuda/matmul_kernels.h"

namespace headcount::cuda {

// The largest tiles of which there are as many as multiprocessors, or else the
// smallest. Of weights that are not float32; x is split.
MatMulLaunch TilesFor(const PackedLayout& layout, int32_t rows,
                      int multiprocessors);

}  // namespace headcount::cuda
