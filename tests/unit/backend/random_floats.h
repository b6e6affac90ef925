// Reproducible test data.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace headcount {

using TestRandom = std::mt19937;

// Uniform in [low, high].
inline int RandomInt(TestRandom& random, int low, int high) {
  return low +
         static_cast<int>(random() % static_cast<uint32_t>(high - low + 1));
}

// Uniform in [-1, 1).
inline float RandomFloat(TestRandom& random) {
  return static_cast<float>(random() >> 8) * 0x1p-23f - 1.0f;
}

inline std::vector<float> RandomFloats(TestRandom& random, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = RandomFloat(random);
  return values;
}

}  // namespace headcount
