#include "backend/cuda/attention_kernels.cuh"

namespace headcount::cuda {

template AttentionKernel FindDecodeOf<KvDtype::kInt4>(int, int, bool);
template AttentionKernel FindPrefillOf<KvDtype::kInt4>(int, bool);

}  // namespace headcount::cuda
