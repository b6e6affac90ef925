#include "tests/unit/model/reference_pages.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace headcount::reference {
namespace {

template <class T>
T Load(const std::byte* from, int64_t index) {
  T value;
  std::memcpy(&value, from + index * static_cast<int64_t>(sizeof(T)),
              sizeof(T));
  return value;
}

template <class T>
void Store(T value, std::byte* to, int64_t index) {
  std::memcpy(to + index * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

// The bits of `value` in a sign, `exponent_bits` and `fraction_bits`: to the
// nearest, ties to even, and not further than `largest`.
uint32_t Encode(double value, int exponent_bits, int fraction_bits,
                double largest) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double magnitude = std::min(std::fabs(value), largest);
  int exponent = -bias;
  if (magnitude > 0) std::frexp(magnitude, &exponent);
  exponent = std::max(exponent - 1, 1 - bias);
  // A fraction that is rounded up to 2 carries into the exponent's bits.
  const auto fraction = static_cast<uint32_t>(
      std::nearbyint(std::ldexp(magnitude, fraction_bits - exponent)));
  const uint32_t bits =
      fraction + (static_cast<uint32_t>(exponent + bias - 1) << fraction_bits);
  const uint32_t sign = std::signbit(value) ? 1u : 0u;
  return bits | sign << (exponent_bits + fraction_bits);
}

// Of finite numbers.
double Decode(uint32_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto fraction = static_cast<int>(bits & ((1u << fraction_bits) - 1));
  const auto exponent =
      static_cast<int>(bits >> fraction_bits & ((1u << exponent_bits) - 1));
  const double magnitude = exponent == 0
                               ? std::ldexp(fraction, 1 - bias - fraction_bits)
                               : std::ldexp(fraction + (1 << fraction_bits),
                                            exponent - bias - fraction_bits);
  return (bits >> (exponent_bits + fraction_bits) & 1) != 0 ? -magnitude
                                                            : magnitude;
}

uint16_t HalfFromFloat(float value) {
  if (std::isnan(value)) return 0x7E00;
  if (std::fabs(value) >= 65520.0f)
    return std::signbit(value) ? 0xFC00 : 0x7C00;
  return static_cast<uint16_t>(Encode(value, 5, 10, INFINITY));
}

int LargestInteger(KvDtype dtype) { return dtype == KvDtype::kInt8 ? 127 : 7; }

void StoreCode(double scaled, KvDtype dtype, std::byte* row, int64_t index) {
  if (dtype == KvDtype::kFp8E4m3) {
    Store(static_cast<uint8_t>(Encode(scaled, 4, 3, 448.0)), row, index);
    return;
  }
  const int largest = LargestInteger(dtype);
  const double rounded = std::nearbyint(scaled);
  const int code =
      static_cast<int>(std::clamp<double>(rounded, -largest, largest)) +
      largest + 1;
  if (dtype == KvDtype::kInt8) {
    Store(static_cast<uint8_t>(code), row, index);
    return;
  }
  const int shift = index % 2 == 0 ? 0 : 4;
  const int others = Load<uint8_t>(row, index / 2) & (0xF0 >> shift);
  Store(static_cast<uint8_t>(others | code << shift), row, index / 2);
}

double ReadCode(const std::byte* row, KvDtype dtype, int64_t index) {
  switch (dtype) {
    case KvDtype::kInt8:
      return Load<uint8_t>(row, index) - 128;
    case KvDtype::kInt4:
      return (Load<uint8_t>(row, index / 2) >> (index % 2 == 0 ? 0 : 4) & 15) -
             8;
    default:
      return Decode(Load<uint8_t>(row, index), 4, 3);
  }
}

}  // namespace

float FloatFromHalf(uint16_t half) {
  if ((half >> 10 & 31) == 31) {
    if ((half & 1023) != 0) return std::numeric_limits<float>::quiet_NaN();
    return (half & 0x8000) != 0 ? -INFINITY : INFINITY;
  }
  return static_cast<float>(Decode(half, 5, 10));
}

void StoreRow(const float* elements, int64_t count, KvDtype dtype,
              std::byte* row, std::byte* scale) {
  double inverse = 0;
  if (IsQuantized(dtype)) {
    float largest = 0;
    for (int64_t i = 0; i < count; ++i) {
      largest = std::max(largest, std::fabs(elements[i]));
    }
    const float most = dtype == KvDtype::kFp8E4m3
                           ? 448.0f
                           : static_cast<float>(LargestInteger(dtype));
    const uint16_t half = HalfFromFloat(std::min(largest / most, 65504.0f));
    Store(half, scale, 0);
    if (half != 0) inverse = 1.0 / FloatFromHalf(half);
  }
  for (int64_t i = 0; i < count; ++i) {
    switch (dtype) {
      case KvDtype::kF32:
        Store(elements[i], row, i);
        break;
      case KvDtype::kF16:
        Store(HalfFromFloat(elements[i]), row, i);
        break;
      case KvDtype::kBf16:
        Store(static_cast<uint16_t>(Encode(elements[i], 8, 7, INFINITY)), row,
              i);
        break;
      default:
        StoreCode(elements[i] * inverse, dtype, row, i);
    }
  }
}

double ReadElement(const std::byte* row, const std::byte* scale, KvDtype dtype,
                   int64_t index) {
  switch (dtype) {
    case KvDtype::kF32:
      return Load<float>(row, index);
    case KvDtype::kF16:
      return FloatFromHalf(Load<uint16_t>(row, index));
    case KvDtype::kBf16:
      return std::bit_cast<float>(
          static_cast<uint32_t>(Load<uint16_t>(row, index)) << 16);
    default:
      return ReadCode(row, dtype, index) *
             FloatFromHalf(Load<uint16_t>(scale, 0));
  }
}

}  // namespace headcount::reference
