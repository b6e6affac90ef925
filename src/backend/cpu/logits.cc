#include "backend/cpu/logits.h"

#include <cmath>
#include <cstdint>
#include <numbers>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/logits.cc"
#include "hwy/foreach_target.h"
// Comes after foreach_target.h.
#include "backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace headcount {
namespace HWY_NAMESPACE {

constexpr int64_t kStep = static_cast<int64_t>(kLanes);
constexpr int64_t kVectors = 16 / kStep;

bool HighestLogit(const float* logits, int64_t count, float* highest) {
  const F32 d;
  const VF32 infinity = hn::Set(d, HUGE_VALF);
  VF32 max = hn::Set(d, -HUGE_VALF);
  // NaN fails every comparison.
  auto below_infinity = hn::Lt(max, infinity);
  int64_t i = 0;
  for (; i + kStep <= count; i += kStep) {
    const VF32 value = hn::LoadU(d, logits + i);
    below_infinity = hn::And(below_infinity, hn::Lt(value, infinity));
    max = hn::Max(max, value);
  }
  bool finite = hn::AllTrue(d, below_infinity);
  float best = hn::GetLane(hn::MaxOfLanes(d, max));
  for (; i < count; ++i) {
    finite = finite && logits[i] < HUGE_VALF;
    if (logits[i] > best) best = logits[i];
  }
  *highest = best;
  return finite && best > -HUGE_VALF;
}

// In double over blocks of 256, in float within them.
double SumOfExponentials(const float* logits, int64_t count, float shift) {
  const F32 d;
  const hn::CappedTag<float, 1> d1;
  const VF32 log2e = hn::Set(d, std::numbers::log2e_v<float>);
  double total = 0;
  int64_t i = 0;
  while (i + 16 <= count) {
    const int64_t end = HWY_MIN(i + 256, count - count % 16);
    VF32 sum[kVectors];
    for (VF32& part : sum) part = hn::Zero(d);
    for (; i < end; i += 16) {
      for (int64_t v = 0; v < kVectors; ++v) {
        const VF32 value = hn::LoadU(d, logits + i + v * kStep);
        const VF32 below = hn::Sub(value, hn::Set(d, shift));
        sum[v] = hn::Add(sum[v], Exp2(d, hn::Mul(below, log2e)));
      }
    }
    HWY_ALIGN float lanes[16];
    for (int64_t v = 0; v < kVectors; ++v) {
      hn::Store(sum[v], d, lanes + v * kStep);
    }
    total += Sum16(lanes);
  }
  for (; i < count; ++i) {
    const float exponent = (logits[i] - shift) * std::numbers::log2e_v<float>;
    total += hn::GetLane(Exp2(d1, hn::Set(d1, exponent)));
  }
  return total;
}

}  // namespace HWY_NAMESPACE
}  // namespace headcount
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace headcount {
namespace {

HWY_EXPORT(HighestLogit);
HWY_EXPORT(SumOfExponentials);

}  // namespace

bool FindHighestLogit(absl::Span<const float> logits, float* highest) {
  return HWY_DYNAMIC_DISPATCH(HighestLogit)(
      logits.data(), static_cast<int64_t>(logits.size()), highest);
}

double SumExp(absl::Span<const float> logits, float shift) {
  return HWY_DYNAMIC_DISPATCH(SumOfExponentials)(
      logits.data(), static_cast<int64_t>(logits.size()), shift);
}

}  // namespace headcount
#endif  // HWY_ONCE
