#include "base/half.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace headcount {
namespace {

// The value of a half by its definition (IEEE 754-2008, 3.4).
double ValueOfHalf(int bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(HalfTest, EveryHalfConvertsExactlyAndBack) {
  for (int bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = FloatFromHalf(half);
    if (std::isnan(ValueOfHalf(bits))) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(FloatFromHalf(HalfFromFloat(value)))) << bits;
      continue;
    }
    ASSERT_EQ(value, ValueOfHalf(bits)) << bits;
    ASSERT_EQ(HalfFromFloat(value), half) << bits;
  }
}

TEST(HalfTest, RoundsToTheNearestAndTiesToEven) {
  for (int bits = 0; bits < 0x7BFF; ++bits) {
    const double low = ValueOfHalf(bits);
    const double high = ValueOfHalf(bits + 1);
    const auto middle = static_cast<float>((low + high) / 2);
    const int even = (bits & 1) == 0 ? bits : bits + 1;
    ASSERT_EQ(HalfFromFloat(middle), even) << bits;
    ASSERT_EQ(HalfFromFloat(std::nextafter(middle, 0.0f)), bits) << bits;
    ASSERT_EQ(HalfFromFloat(std::nextafter(middle, 1e6f)), bits + 1) << bits;
  }
}

TEST(HalfTest, OverflowsToInfinityAndUnderflowsToZero) {
  EXPECT_EQ(HalfFromFloat(65519.0f), 0x7BFF);
  EXPECT_EQ(HalfFromFloat(65520.0f), 0x7C00);
  EXPECT_EQ(HalfFromFloat(-1e30f), 0xFC00);
  EXPECT_EQ(HalfFromFloat(0x1p-25f), 0);
  EXPECT_EQ(HalfFromFloat(-0x1p-26f), 0x8000);
}

}  // namespace
}  // namespace headcount
