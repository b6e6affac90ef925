// What a model may be, in whatever file it says so. Far above any model that
// fits a machine, far below where products of two of them overflow 63 bits.
#pragma once

#include "model/json_fields.h"

namespace headcount {

inline constexpr IntRange kLayers{1, 1024};
inline constexpr IntRange kHidden{1, 1 << 16};
inline constexpr IntRange kFfn{1, 1 << 20};
inline constexpr IntRange kVocab{1, 1 << 22};
inline constexpr IntRange kHeads{1, 1024};
inline constexpr IntRange kHeadDim{2, 1024};
inline constexpr IntRange kMaxContext{1, 1 << 24};
inline constexpr NumberRange kEpsilon{0.0, 1.0};
inline constexpr NumberRange kTheta{1.0, 1e12};
inline constexpr NumberRange kFactor{0.0, 1e6};

}  // namespace headcount
