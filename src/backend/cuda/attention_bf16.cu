#include "backend/cuda/attention_kernels.cuh"

namespace headcount::cuda {

template AttentionKernel FindDecodeOf<KvDtype::kBf16>(int, int, bool);
template AttentionKernel FindPrefillOf<KvDtype::kBf16>(int, bool);

}  // namespace headcount::cuda
