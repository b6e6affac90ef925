// 16-bit floating point, converted in plain C++ to the same bits on every
// machine.
#pragma once

#include <bit>
#include <cstdint>

namespace headcount {

// Exact, subnormals, infinities and NaN included.
constexpr float FloatFromHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFF) << 13;
  // 2^112 moves the exponent's bias from 15 to 127.
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t special = (half & 0x7C00) == 0x7C00 ? 0x7F800000 : 0;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | special | sign);
}

constexpr float FloatFromBfloat16(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

// To the nearest, ties to even; infinity above 65519.
constexpr uint16_t HalfFromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  uint32_t half;
  if (magnitude >= 0x47800000) {  // 2^16 and above
    half = magnitude > 0x7F800000 ? 0x7E00 : 0x7C00;
  } else if (magnitude < 0x38800000) {  // below 2^-14: subnormal
    // Adding 0.5 rounds to multiples of 2^-24, the spacing of subnormals.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    half = std::bit_cast<uint32_t>(shifted) - 0x3F000000;
  } else {
    const uint32_t odd = (magnitude >> 13) & 1;
    half = (magnitude - (112u << 23) + 0xFFF + odd) >> 13;
  }
  return static_cast<uint16_t>(half | sign);
}

// To the nearest, ties to even.
constexpr uint16_t Bfloat16FromFloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;  // NaN
  const uint32_t odd = (bits >> 16) & 1;
  return static_cast<uint16_t>((bits + 0x7FFF + odd) >> 16);
}

}  // namespace headcount
