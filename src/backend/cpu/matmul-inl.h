// The end of every matrix product, compiled once for each target: included
// after hwy/foreach_target.h by each file of kernels.
#if defined(HEADCOUNT_BACKEND_CPU_MATMUL_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef HEADCOUNT_BACKEND_CPU_MATMUL_INL_H_
#undef HEADCOUNT_BACKEND_CPU_MATMUL_INL_H_
#else
#define HEADCOUNT_BACKEND_CPU_MATMUL_INL_H_
#endif

#include <cstdint>

#include "backend/cpu/matmul.h"
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

// Adds bias and old output where asked, and stores the lanes that exist.
// sum: [kLanes], aligned.
HWY_INLINE void StoreOutput(const MatMulOperands& operands, int64_t row,
                            int64_t col, const float* sum) {
  const F32 d;
  const int64_t width = operands.w->rows();
  float* out = operands.out + row * width + col;
  const float* bias = operands.bias;
  const bool add = operands.mode == Backend::MatMulMode::kAdd;
  if (HWY_LIKELY(col + static_cast<int64_t>(kLanes) <= width)) {
    VF32 value = hn::Load(d, sum);
    if (bias != nullptr) value = hn::Add(value, hn::LoadU(d, bias + col));
    if (add) value = hn::Add(value, hn::LoadU(d, out));
    hn::StoreU(value, d, out);
    return;
  }
  for (int64_t i = 0; i < width - col; ++i) {
    float value = sum[i];
    if (bias != nullptr) value += bias[col + i];
    out[i] = add ? value + out[i] : value;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#endif  // the per-target guard
