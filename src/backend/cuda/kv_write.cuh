// Rotary embedding of queries and keys, the norm in front of it where a model
// has one, and the writing of keys and values into their pages, quantised on
// the way: one pass over what the projection left.
#pragma once

#include "backend/cuda/activation.cuh"
#include "backend/cuda/kv_page.h"
#include "backend/cuda/kv_write_work.h"
#include "backend/cuda/reduce.cuh"
#include "heads/kv_codes.h"

namespace headcount::cuda {

inline constexpr int kKvWriteThreads = 128;

// One head of one row, in the registers of a warp: lane l has the elements l,
// l + 32, ... of both halves, so that those which rotate together are in one
// lane.
class HeadVector {
 public:
  DEVICE HeadVector(int head_dim, int lane)
      : head_dim_(head_dim), half_(head_dim / 2), lane_(lane) {}

  DEVICE void Load(const KvWriteParams& params, int64_t begin) {
    WithElements(params.qkv, params.activation, [&](auto elements) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const int element = lane_ + 32 * i;
        low_[i] = element < half_ ? elements[begin + element] : 0.0f;
        high_[i] = element < half_ ? elements[begin + half_ + element] : 0.0f;
      }
    });
  }

  DEVICE void Store(const KvWriteParams& params, int64_t begin) const {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int element = lane_ + 32 * i;
      if (element < half_) {
        StoreActivation(low_[i], params.activation, begin + element,
                        params.qkv);
        StoreActivation(high_[i], params.activation, begin + half_ + element,
                        params.qkv);
      }
    }
  }

  // RMSNorm (Zhang & Sennrich 2019, arXiv:1910.07467).
  DEVICE void Normalise(const float* weight, float epsilon) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      squares += low_[i] * low_[i] + high_[i] * high_[i];
    }
    const float mean = WarpSum(squares) / static_cast<float>(head_dim_);
    const float scale = 1.0f / sqrtf(mean + epsilon);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int element = lane_ + 32 * i;
      if (element < half_) {
        low_[i] *= scale * weight[element];
        high_[i] *= scale * weight[half_ + element];
      }
    }
  }

  DEVICE void Rotate(const float* cos, const float* sin) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int element = lane_ + 32 * i;
      if (element < half_) {
        const float low = low_[i];
        const float high = high_[i];
        low_[i] = low * cos[element] - high * sin[element];
        high_[i] = high * cos[element] + low * sin[element];
      }
    }
  }

  // Writes row `token` of `tensor`, the K or V of a page, and its scale:
  // `static_scale`, or to `scales` where a token has its own.
  DEVICE void WriteRow(KvDtype dtype, int token, float static_scale,
                       std::byte* tensor, std::byte* scales) const {
    float inverse = 1;
    if (IsQuantized(dtype)) {
      if (scales != nullptr) {
        const uint16_t scale = KvScaleFor(Largest(), dtype);
        if (lane_ == 0) reinterpret_cast<uint16_t*>(scales)[token] = scale;
        inverse = InverseKvScale(scale);
      } else {
        inverse = 1.0f / static_scale;
      }
    }
    const auto row_bytes = static_cast<int>(KvRowBytes(head_dim_, dtype));
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int element = lane_ + 32 * i;
      const bool exists = element < half_;
      WriteElement(dtype, row_bytes, token, element, exists, low_[i] * inverse,
                   tensor);
      WriteElement(dtype, row_bytes, token, half_ + element, exists,
                   high_[i] * inverse, tensor);
    }
  }

 private:
  static constexpr int kPieces = 4;  // of a half of 128 elements

  DEVICE float Largest() const {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      largest = fmaxf(largest, fmaxf(fabsf(low_[i]), fabsf(high_[i])));
    }
    return WarpMax(largest);
  }

  // All lanes of the warp, with neighbouring elements in neighbouring lanes.
  DEVICE static void WriteElement(KvDtype dtype, int row_bytes, int token,
                                  int element, bool exists, float value,
                                  std::byte* tensor) {
    uint32_t code = 0;
    if (dtype == KvDtype::kInt4) {
      // The even element of a byte has the low nibble; its lane writes both.
      code = Int4Code(value);
      code |= __shfl_xor_sync(0xFFFFFFFFu, code, 1) << 4;
      exists = exists && element % 2 == 0;
    } else if (dtype == KvDtype::kInt8) {
      code = Int8Code(value);
    } else if (dtype == KvDtype::kFp8E4m3) {
      code = Fp8Code(value);
    } else {
      code = dtype == KvDtype::kF16 ? ptx::FloatToHalf(value)
                                    : ptx::FloatToBf16(value);
    }
    if (!exists) return;
    std::byte* to =
        tensor + PageElementOffset(row_bytes, dtype, token, element);
    if (KvDtypeBits(dtype) == 16) {
      *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(code);
    } else {
      *to = static_cast<std::byte>(code);
    }
  }

  int head_dim_;
  int half_;
  int lane_;
  float low_[kPieces];
  float high_[kPieces];
};

// Grid: enough blocks of kKvWriteThreads threads for a warp a head and row; no
// shared memory. Pages of float32 are not written.
__global__ void __launch_bounds__(kKvWriteThreads)
    RotateAndWriteKv(const __grid_constant__ KvWriteParams params) {
  constexpr int kWarps = kKvWriteThreads / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(blockIdx.x) * kWarps +
                   static_cast<int>(threadIdx.x) / 32;
  const int heads = params.queries + 2 * params.kv_heads;
  const int row = warp / heads;
  const int head = warp % heads;
  ptx::GridDependencyWait();
  ptx::GridDependencyLaunch();
  if (row >= params.rows) return;
  const bool is_query = head < params.queries;
  const bool is_value = head >= params.queries + params.kv_heads;
  const int64_t begin =
      (static_cast<int64_t>(row) * heads + head) * params.head_dim;
  HeadVector vector(params.head_dim, lane);
  vector.Load(params, begin);
  if (!is_value) {
    const float* norm = is_query ? params.q_norm : params.k_norm;
    if (norm != nullptr) vector.Normalise(norm, params.norm_epsilon);
    const int64_t angles = static_cast<int64_t>(row) * (params.head_dim / 2);
    vector.Rotate(params.cos + angles, params.sin + angles);
  }
  if (is_query) {
    vector.Store(params, begin);
    return;
  }
  const KvWriteHead& to =
      params.heads[(head - params.queries) % params.kv_heads];
  if (to.group < 0) return;
  std::byte* block =
      params.arena +
      params.row_blocks[static_cast<int64_t>(to.group) * params.rows + row];
  const bool token_scales = to.page.scale == KvScale::kToken;
  std::byte* scales =
      block + (is_value ? to.page.v_scales_offset : to.page.k_scales_offset);
  vector.WriteRow(to.page.dtype, params.positions[row] % kBlockTokens,
                  is_value ? to.v_scale : to.k_scale,
                  block + (is_value ? to.page.v_offset : to.page.k_offset),
                  token_scales ? scales : nullptr);
}

}  // namespace headcount::cuda
