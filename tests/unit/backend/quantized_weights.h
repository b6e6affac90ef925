// Random blocks of quantised weights, as a GGUF file has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/element_type.h"
#include "base/half.h"

namespace headcount {

inline void PutHalf(float value, std::byte* to) {
  const uint16_t bits = HalfFromFloat(value);
  std::memcpy(to, &bits, sizeof(bits));
}

// Random bits but for the float16 scales of each block, which are made so that
// weights lie about in [-1, 1]. `count` elements, whole blocks.
inline std::vector<std::byte> RandomQuantizedWeights(std::mt19937& random,
                                                     ElementType type,
                                                     int64_t count) {
  const ElementBlock size = BlockOf(type);
  std::vector<std::byte> bytes(static_cast<size_t>(ElementBytes(type, count)));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const auto uniform = [&random](float low, float high) {
    return low + (high - low) * static_cast<float>(random() >> 8) * 0x1p-24f;
  };
  const auto block_bytes = static_cast<size_t>(size.bytes);
  for (size_t i = 0; i < bytes.size(); i += block_bytes) {
    std::byte* block = bytes.data() + i;
    switch (type) {
      case ElementType::kQ8_0:
        PutHalf(uniform(0.002f, 0.008f), block);
        break;
      case ElementType::kQ4_0:
        PutHalf(uniform(-0.12f, 0.12f), block);
        break;
      case ElementType::kQ4_1:
        PutHalf(uniform(0.02f, 0.12f), block);
        PutHalf(uniform(-0.9f, -0.1f), block + 2);
        break;
      case ElementType::kQ5_0:
        PutHalf(uniform(-0.06f, 0.06f), block);
        break;
      case ElementType::kQ5_1:
        PutHalf(uniform(0.01f, 0.06f), block);
        PutHalf(uniform(-0.9f, -0.1f), block + 2);
        break;
      case ElementType::kQ4_K:
        PutHalf(uniform(0.0004f, 0.002f), block);
        PutHalf(uniform(0.004f, 0.02f), block + 2);
        break;
      case ElementType::kQ5_K:
        PutHalf(uniform(0.0002f, 0.001f), block);
        PutHalf(uniform(0.004f, 0.02f), block + 2);
        break;
      case ElementType::kQ6_K:
        PutHalf(uniform(0.0001f, 0.0003f), block + 208);
        break;
      default:
        break;
    }
  }
  return bytes;
}

}  // namespace headcount
