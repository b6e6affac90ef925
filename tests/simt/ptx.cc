#include "tests/simt/ptx.h"

#include <limits>

#include "base/half.h"
#include "tests/simt/block.h"

namespace headcount::ptx {
namespace {

constexpr uint16_t kNan16 = 0x7FFF;  // that of cvt, for bf16 and f16 alike

uint16_t Low(uint32_t pair) { return static_cast<uint16_t>(pair); }
uint16_t High(uint32_t pair) { return static_cast<uint16_t>(pair >> 16); }
uint32_t Pair(uint16_t low, uint16_t high) {
  return low | static_cast<uint32_t>(high) << 16;
}

}  // namespace

float Bf16ToFloat(uint16_t value) {
  return headcount::FloatFromBfloat16(value);
}

float HalfToFloat(uint16_t value) { return headcount::FloatFromHalf(value); }

uint16_t FloatToBf16(float value) {
  if (std::isnan(value)) return kNan16;
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

uint16_t FloatToHalf(float value) {
  return std::isnan(value) ? kNan16 : headcount::HalfFromFloat(value);
}

uint32_t PackBf16(float low, float high) {
  return Pair(FloatToBf16(low), FloatToBf16(high));
}

uint32_t PackHalf(float low, float high) {
  return Pair(FloatToHalf(low), FloatToHalf(high));
}

float Exp2(float value) {
  constexpr float kLeast = std::numeric_limits<float>::min();
  if (std::fabs(value) < kLeast) value = 0.0f;
  const float power = std::exp2(value);
  return power < kLeast ? 0.0f : power;
}

uint32_t Prmt(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const uint32_t select = selector >> (4 * i) & 0xF;
    uint32_t byte = static_cast<uint32_t>(bytes >> ((select & 7) * 8)) & 0xFF;
    if ((select & 8) != 0) byte = (byte & 0x80) != 0 ? 0xFF : 0;  // its sign
    result |= byte << (8 * i);
  }
  return result;
}

// Rounding to float first changes nothing: it has twice a half's bits and two.
uint32_t HalfSub2(uint32_t a, uint32_t b) {
  return PackHalf(HalfToFloat(Low(a)) - HalfToFloat(Low(b)),
                  HalfToFloat(High(a)) - HalfToFloat(High(b)));
}

uint32_t HalfMul2(uint32_t a, uint32_t b) {
  return PackHalf(HalfToFloat(Low(a)) * HalfToFloat(Low(b)),
                  HalfToFloat(High(a)) * HalfToFloat(High(b)));
}

// As with halves: float32 has twice the bits of bf16 and two.
uint32_t Bf16Add2(uint32_t a, uint32_t b) {
  return PackBf16(Bf16ToFloat(Low(a)) + Bf16ToFloat(Low(b)),
                  Bf16ToFloat(High(a)) + Bf16ToFloat(High(b)));
}

}  // namespace headcount::ptx
