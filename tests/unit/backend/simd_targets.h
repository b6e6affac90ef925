// Runs a test body once for every SIMD target that this machine has.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/highway.h"
#include "hwy/targets.h"

namespace headcount {

// Best target first; the plain C++ fallback last. Most kernels are compiled for
// the same targets; `also`: one more, of those that some are compiled for.
inline std::vector<int64_t> SimdTargets(int64_t also = 0) {
  std::vector<int64_t> targets;
  const int64_t supported = hwy::SupportedTargets();
  for (const int64_t target :
       std::initializer_list<int64_t>{also, HWY_AVX3, HWY_AVX2, HWY_NEON}) {
    if ((supported & target) != 0) targets.push_back(target);
  }
  targets.push_back(HWY_STATIC_TARGET);
  return targets;
}

// Has kernels run as on a CPU whose best target that is. Where a kernel is not
// compiled for AVX3_DL, such a CPU takes AVX3.
inline void UseSimdTarget(int64_t target) {
  hwy::SetSupportedTargetsForTest(target == HWY_AVX3_DL ? HWY_AVX3_DL | HWY_AVX3
                                                        : target);
}

inline void ForEachSimdTarget(const std::function<void()>& body,
                              int64_t also = 0) {
  for (const int64_t target : SimdTargets(also)) {
    SCOPED_TRACE(std::string("target ") + hwy::TargetName(target));
    UseSimdTarget(target);
    body();
    hwy::SetSupportedTargetsForTest(0);
  }
}

}  // namespace headcount
