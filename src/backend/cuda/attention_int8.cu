#include "backend/cuda/attention_kernels.cuh"

namespace headcount::cuda {

template AttentionKernel FindDecodeOf<KvDtype::kInt8>(int, int, bool);
template AttentionKernel FindPrefillOf<KvDtype::kInt8>(int, bool);

}  // namespace headcount::cuda
