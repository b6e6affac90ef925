// Instances of the attention kernels for one dtype; a file for each keeps the
// compiler busy on all cores.
#pragma once

#include "backend/cuda/attention_kernels.h"
#include "backend/cuda/decode_attention.cuh"
#include "backend/cuda/prefill_attention.cuh"

namespace headcount::cuda {

template <class Page, int kColumns, bool kBulk>
AttentionKernel DecodeKernel() {
  using Shape = DecodeShape<Page, kColumns>;
  return {.kernel = DecodeAttention<Shape, kBulk>,
          .threads = Shape::kThreads,
          .shared_bytes = Shape::kSharedBytes,
          .max_queries = kColumns};
}

template <class Page, bool kBulk>
AttentionKernel PrefillKernel() {
  using Shape = PrefillShape<Page>;
  return {.kernel = PrefillAttention<Shape, kBulk>,
          .threads = Shape::kThreads,
          .shared_bytes = Shape::kSharedBytes,
          .max_queries = Shape::kRows};
}

// Heads of 16 elements are those of models that only tests have.
#if defined(HEADCOUNT_SIMT)
template <KvDtype kDtype>
inline constexpr bool kHasSixteenOf = KvDtypeBits(kDtype) == 16;
#else
template <KvDtype kDtype>
inline constexpr bool kHasSixteenOf = false;
#endif

// Both kernels of one head dimension.
template <KvDtype kDtype, bool kBulk>
struct KernelTable {
  static constexpr bool kHasSixteen = kHasSixteenOf<kDtype>;
  template <int kHeadDim>
  using Page = PageShape<kHeadDim, kDtype>;

  template <int kHeadDim>
  static AttentionKernel Decode(int queries) {
    if constexpr (kHeadDim <= 128) {
      if (queries > 8) return DecodeKernel<Page<kHeadDim>, 16, kBulk>();
    }
    return DecodeKernel<Page<kHeadDim>, 8, kBulk>();
  }
  static AttentionKernel Decode(int head_dim, int queries) {
    if constexpr (kHasSixteen) {
      if (head_dim == 16) return Decode<16>(queries);
    }
    switch (head_dim) {
      case 32:
        return Decode<32>(queries);
      case 64:
        return Decode<64>(queries);
      case 80:
        return Decode<80>(queries);
      case 96:
        return Decode<96>(queries);
      case 128:
        return Decode<128>(queries);
      case 256:
        return Decode<256>(queries);
      default:
        return {};
    }
  }
  static AttentionKernel Prefill(int head_dim) {
    if constexpr (kHasSixteen) {
      if (head_dim == 16) return PrefillKernel<Page<16>, kBulk>();
    }
    switch (head_dim) {
      case 32:
        return PrefillKernel<Page<32>, kBulk>();
      case 64:
        return PrefillKernel<Page<64>, kBulk>();
      case 80:
        return PrefillKernel<Page<80>, kBulk>();
      case 96:
        return PrefillKernel<Page<96>, kBulk>();
      case 128:
        return PrefillKernel<Page<128>, kBulk>();
      case 256:
        return PrefillKernel<Page<256>, kBulk>();
      default:
        return {};
    }
  }
};

// Calls use(KernelTable) with the one that the arguments name.
template <KvDtype kDtype, class Use>
AttentionKernel WithTable(bool bulk, const Use& use) {
#if defined(HEADCOUNT_SIMT)
  if (!bulk) return use(KernelTable<kDtype, false>());
#else
  static_cast<void>(bulk);  // the architecture decides
#endif
  return use(KernelTable<kDtype, true>());
}

template <KvDtype kDtype>
AttentionKernel FindDecodeOf(int head_dim, int queries, bool bulk) {
  return WithTable<kDtype>(
      bulk, [&](auto table) { return table.Decode(head_dim, queries); });
}

template <KvDtype kDtype>
AttentionKernel FindPrefillOf(int head_dim, bool bulk) {
  return WithTable<kDtype>(bulk,
                           [&](auto table) { return table.Prefill(head_dim); });
}

}  // namespace headcount::cuda
