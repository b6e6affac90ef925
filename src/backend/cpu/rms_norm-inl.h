// RMSNorm of one row (Zhang & Sennrich 2019, arXiv:1910.07467), compiled once
// for each target: included after hwy/foreach_target.h by each kernel file.
#if defined(HEADCOUNT_BACKEND_CPU_RMS_NORM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HEADCOUNT_BACKEND_CPU_RMS_NORM_INL_H_
#undef HEADCOUNT_BACKEND_CPU_RMS_NORM_INL_H_
#else
#define HEADCOUNT_BACKEND_CPU_RMS_NORM_INL_H_
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

// The sum of squares, in 16 interleaved parts on every target.
HWY_INLINE float SumOfSquares(const float* HWY_RESTRICT x, int64_t cols) {
  const F32 d;
  constexpr size_t kVectors = 16 / kLanes;
  VF32 sum[kVectors];
  for (VF32& part : sum) part = hn::Zero(d);
  int64_t i = 0;
  for (; i + 16 <= cols; i += 16) {
    for (size_t v = 0; v < kVectors; ++v) {
      const VF32 value = hn::LoadU(d, x + i + v * kLanes);
      sum[v] = hn::MulAdd(value, value, sum[v]);
    }
  }
  HWY_ALIGN float parts[16];
  for (size_t v = 0; v < kVectors; ++v) {
    hn::Store(sum[v], d, parts + v * kLanes);
  }
  for (int64_t j = 0; i + j < cols; ++j) parts[j] += x[i + j] * x[i + j];
  return Sum16(parts);
}

// x and out may be the same. x, weight, out: [cols]
inline void RmsNormRow(const float* x, const float* HWY_RESTRICT weight,
                       float epsilon, int64_t cols, float* out) {
  const F32 d;
  const float mean = SumOfSquares(x, cols) / static_cast<float>(cols);
  const float inverse = 1.0f / std::sqrt(mean + epsilon);
  const VF32 scale = hn::Set(d, inverse);
  int64_t i = 0;
  for (; i + static_cast<int64_t>(kLanes) <= cols; i += kLanes) {
    const VF32 value = hn::Mul(hn::LoadU(d, x + i), scale);
    hn::StoreU(hn::Mul(value, hn::LoadU(d, weight + i)), d, out + i);
  }
  for (; i < cols; ++i) out[i] = x[i] * inverse * weight[i];
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#endif  // the per-target guard
