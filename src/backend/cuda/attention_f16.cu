#include "backend/cuda/attention_kernels.cuh"

namespace headcount::cuda {

template AttentionKernel FindDecodeOf<KvDtype::kF16>(int, int, bool);
template AttentionKernel FindPrefillOf<KvDtype::kF16>(int, bool);

}  // namespace headcount::cuda
