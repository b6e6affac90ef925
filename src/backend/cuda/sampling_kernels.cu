#include "backend/cuda/sampling_kernels.cuh"
#include "backend/cuda/sampling_kernels.h"

namespace headcount::cuda {

Kernel<SampleParams> FindSampleKernel() {
  return {.kernel = SampleRows,
          .threads = kSampleThreads,
          .shared_bytes = static_cast<int>(sizeof(SampleShared))};
}

}  // namespace headcount::cuda
