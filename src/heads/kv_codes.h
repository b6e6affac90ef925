// The codes of quantised keys and values: symmetric, value = code * scale.
// Constant expressions in plain C++, so that every device computes the same
// bits and host and kernels share one definition.
//
//   int8      -127 .. 127, stored + 128 in a byte
//   int4      -7 .. 7, stored + 8 in a nibble; which two share a byte is the
//             backend's own
//   fp8_e4m3  the OCP 8-bit format (arXiv:2209.05433): up to 448, no infinity
#pragma once

#include <bit>
#include <cstdint>

#include "base/half.h"
#include "heads/kv_dtype.h"

namespace headcount {

// The code farthest from zero.
constexpr float LargestKvCode(KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kInt8:
      return 127.0f;
    case KvDtype::kInt4:
      return 7.0f;
    case KvDtype::kFp8E4m3:
      return 448.0f;
    default:
      return 1.0f;
  }
}

// The float16 scale under which elements up to `largest` in magnitude have
// codes. 0 when all of them are 0, or so small that no half is as small; NaN
// where `largest` is infinite or NaN, so that what is broken stays so.
constexpr uint16_t KvScaleFor(float largest, KvDtype dtype) {
  if ((std::bit_cast<uint32_t>(largest) & 0x7F800000) == 0x7F800000) {
    return 0x7E00;
  }
  const float scale = largest / LargestKvCode(dtype);
  return HalfFromFloat(scale < 65504.0f ? scale : 65504.0f);
}

// What elements are multiplied with on the way to their codes.
constexpr float InverseKvScale(uint16_t scale) {
  return scale == 0 ? 0.0f : 1.0f / FloatFromHalf(scale);
}

// The nearest integer, ties to even, of |x| < 2^22.
constexpr float RoundToInteger(float x) { return x + 0x1.8p23f - 0x1.8p23f; }

// NaN becomes `largest`: a code all the same, under a scale of NaN.
constexpr float ClampMagnitude(float x, float largest) {
  return x < largest ? (x > -largest ? x : -largest) : largest;
}

// `x` is an element times InverseKvScale; what is out of range becomes the
// largest code.
constexpr uint8_t Int8Code(float x) {
  return static_cast<uint8_t>(
      static_cast<int>(RoundToInteger(ClampMagnitude(x, 127.0f))) + 128);
}
constexpr uint8_t Int4Code(float x) {
  return static_cast<uint8_t>(
      static_cast<int>(RoundToInteger(ClampMagnitude(x, 7.0f))) + 8);
}
constexpr uint8_t Fp8Code(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(ClampMagnitude(x, 448.0f));
  const uint32_t sign = (bits >> 24) & 0x80;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude < 0x3C800000) {  // below 2^-6: multiples of 2^-9
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(
        (std::bit_cast<uint32_t>(shifted) - 0x46800000) | sign);
  }
  const uint32_t odd = (magnitude >> 20) & 1;
  return static_cast<uint8_t>(
      ((magnitude - (120u << 23) + 0x7FFFF + odd) >> 20) | sign);
}

// The values of codes, before the scale.
constexpr float FromInt8Code(uint8_t code) {
  return static_cast<float>(static_cast<int>(code) - 128);
}
constexpr float FromInt4Code(uint8_t code) {
  return static_cast<float>(static_cast<int>(code) - 8);
}
constexpr float FromFp8Code(uint8_t code) {
  // As a half with four exponent bits: 2^8 moves the bias from 15 to 7.
  const auto half =
      static_cast<uint16_t>((code & 0x80) << 8 | (code & 0x7F) << 7);
  return FloatFromHalf(half) * 256.0f;
}

}  // namespace headcount
