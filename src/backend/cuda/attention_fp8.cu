#include "backend/cuda/attention_kernels.cuh"

namespace headcount::cuda {

template AttentionKernel FindDecodeOf<KvDtype::kFp8E4m3>(int, int, bool);
template AttentionKernel FindPrefillOf<KvDtype::kFp8E4m3>(int, bool);

}  // namespace headcount::cuda
