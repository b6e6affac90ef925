#include "backend/cuda/attention_kernels.h"

namespace headcount::cuda {

// Instances are in attention_<dtype>.cu.
template <KvDtype kDtype>
AttentionKernel FindDecodeOf(int head_dim, int queries, bool bulk);
template <KvDtype kDtype>
AttentionKernel FindPrefillOf(int head_dim, bool bulk);

AttentionKernel FindDecodeKernel(KvDtype dtype, int head_dim, int queries,
                                 bool bulk) {
  switch (dtype) {
    case KvDtype::kF32:
      return {};
    case KvDtype::kF16:
      return FindDecodeOf<KvDtype::kF16>(head_dim, queries, bulk);
    case KvDtype::kBf16:
      return FindDecodeOf<KvDtype::kBf16>(head_dim, queries, bulk);
    case KvDtype::kFp8E4m3:
      return FindDecodeOf<KvDtype::kFp8E4m3>(head_dim, queries, bulk);
    case KvDtype::kInt8:
      return FindDecodeOf<KvDtype::kInt8>(head_dim, queries, bulk);
    case KvDtype::kInt4:
      return FindDecodeOf<KvDtype::kInt4>(head_dim, queries, bulk);
  }
  return {};
}

AttentionKernel FindPrefillKernel(KvDtype dtype, int head_dim, bool bulk) {
  switch (dtype) {
    case KvDtype::kF32:
      return {};
    case KvDtype::kF16:
      return FindPrefillOf<KvDtype::kF16>(head_dim, bulk);
    case KvDtype::kBf16:
      return FindPrefillOf<KvDtype::kBf16>(head_dim, bulk);
    case KvDtype::kFp8E4m3:
      return FindPrefillOf<KvDtype::kFp8E4m3>(head_dim, bulk);
    case KvDtype::kInt8:
      return FindPrefillOf<KvDtype::kInt8>(head_dim, bulk);
    case KvDtype::kInt4:
      return FindPrefillOf<KvDtype::kInt4>(head_dim, bulk);
  }
  return {};
}

}  // namespace headcount::cuda
