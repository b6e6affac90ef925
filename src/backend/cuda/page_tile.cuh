// Pages in shared memory: how they get there, and how a warp reads them.
#pragma once

#include "backend/cuda/attention_work.h"
#include "backend/cuda/page_codes.cuh"

namespace headcount::cuda {

// The sizes of a page; bytes unless they say otherwise.
template <int kHeadDim_, KvDtype kDtype_>
struct PageShape {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr KvDtype kDtype = kDtype_;
  static constexpr int kRowBytes =
      static_cast<int>(KvRowBytes(kHeadDim, kDtype));
  static constexpr int kChunks = kRowBytes / kChunkBytes;
  // Elements of a row, padding included, and 16-wide steps over them.
  static constexpr int kElements = kRowBytes * 8 / KvDtypeBits(kDtype);
  static constexpr int kSteps = kElements / 16;
  static constexpr int kTensorBytes = kBlockTokens * kRowBytes;
  // Of the scales of K, or V, where they are per token.
  static constexpr int kScaleBytes =
      IsQuantized(kDtype) ? kBlockTokens * static_cast<int>(sizeof(uint16_t))
                          : 0;
  // With such scales, or room for them.
  static constexpr int kBytes = 2 * (kTensorBytes + kScaleBytes);
  // Whether stored bits can be what no finite number is.
  static constexpr bool kCanBeNan =
      kDtype != KvDtype::kInt8 && kDtype != KvDtype::kInt4;
};

// Where one lane of a warp points ldmatrix at: row `row` of 16, chunk c or
// c + 1, for even c. (The other lanes have the other rows.)
template <int kRowBytes>
class ChunkPair {
 public:
  DEVICE ChunkPair(int row, bool second) : row_(row), second_(second) {
    if constexpr (kWide) {
      base_ = row * 128;
      swizzle_ = (row % 8 ^ static_cast<int>(second)) * kChunkBytes;
    }
  }

  // Bytes from the start of the rows. Where a row ends with chunk c, that
  // stands in for the next.
  DEVICE int Offset(int chunk) const {
    if constexpr (kWide) {
      return chunk / 8 * (kBlockTokens * 128) + base_ +
             (swizzle_ ^ chunk % 8 * kChunkBytes);
    } else {
      const int first = PageChunkOffset(kRowBytes, row_, chunk);
      if ((chunk + 1) * kChunkBytes == kRowBytes) return first;
      const int next = PageChunkOffset(kRowBytes, row_, chunk + 1);
      return second_ ? next : first;
    }
  }

 private:
  static constexpr bool kWide = kRowBytes % 128 == 0;

  int row_;
  bool second_;
  int base_ = 0;
  int swizzle_ = 0;
};

// Bytes of a page in global memory.
template <class Page>
DEVICE int StoredBytes(const AttentionParams& params) {
  return params.token_scales ? Page::kBytes : 2 * Page::kTensorBytes;
}

// The scale of K (which = 0) or V (1) of a token, where it has one.
template <class Page>
DEVICE float TokenScale(const unsigned char* page, int which, int token) {
  const unsigned char* scales =
      page + 2 * Page::kTensorBytes + which * Page::kScaleBytes;
  return ptx::HalfToFloat(reinterpret_cast<const uint16_t*>(scales)[token]);
}

// Zeroes rows [begin, kBlockTokens) of V, which were never written: their
// weights are 0, but 0 times what no number is, is none either. `lane` of
// `lanes` threads does its part; a barrier between them must follow.
template <class Page>
DEVICE void ZeroValueRows(unsigned char* page, int begin, int lane, int lanes) {
  if constexpr (Page::kCanBeNan) {
    const int count = (kBlockTokens - begin) * Page::kChunks;
    for (int i = lane; i < count; i += lanes) {
      const int offset = PageChunkOffset(
          Page::kRowBytes, begin + i / Page::kChunks, i % Page::kChunks);
      auto* words =
          reinterpret_cast<uint32_t*>(page + Page::kTensorBytes + offset);
#pragma unroll
      for (int word = 0; word < 4; ++word) words[word] = 0;
    }
    // The next copy into this memory goes past what these threads see.
    ptx::FenceProxyAsync();
  }
}

}  // namespace headcount::cuda
