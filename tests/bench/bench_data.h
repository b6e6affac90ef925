// Inputs of the benchmarks, the same in every run, and a hash of what came out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "backend/matrix_source.h"
#include "base/half.h"
#include "tests/unit/backend/quantized_weights.h"

namespace headcount {

// HEADCOUNT_THREADS, or 0: one for each core.
inline int BenchThreads() {
  const char* threads = std::getenv("HEADCOUNT_THREADS");
  return threads == nullptr ? 0 : std::atoi(threads);
}

// Uniform in [-1, 1).
inline std::vector<float> RandomFloats(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    value = static_cast<float>(random() >> 8) * 0x1p-23f - 1.0f;
  }
  return values;
}

inline std::vector<std::byte> RandomWeights(int64_t count, ElementType dtype,
                                            uint32_t seed) {
  if (IsQuantized(dtype)) {
    std::mt19937 random(seed);
    return RandomQuantizedWeights(random, dtype, count);
  }
  const std::vector<float> values = RandomFloats(count, seed);
  const size_t element = dtype == ElementType::kF32 ? 4 : 2;
  std::vector<std::byte> bytes(values.size() * element);
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, &values[i], sizeof(bits));
    if (dtype == ElementType::kF16) bits = HalfFromFloat(values[i]);
    if (dtype == ElementType::kBf16) bits >>= 16;
    std::memcpy(&bytes[i * element], &bits, element);
  }
  return bytes;
}

// FNV-1a of the bits, such as "hash 0123456789abcdef".
inline std::string HashLabel(absl::Span<const float> values) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const float value : values) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    hash = (hash ^ bits) * 0x100000001b3;
  }
  char text[32];
  std::snprintf(text, sizeof(text), "hash %016llx",
                static_cast<unsigned long long>(hash));
  return text;
}

}  // namespace headcount
