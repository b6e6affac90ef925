#include "heads/kv_codes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace headcount {
namespace {

constexpr KvDtype kQuantized[] = {KvDtype::kFp8E4m3, KvDtype::kInt8,
                                  KvDtype::kInt4};

uint8_t CodeOf(float x, KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kInt8:
      return Int8Code(x);
    case KvDtype::kInt4:
      return Int4Code(x);
    default:
      return Fp8Code(x);
  }
}

float ValueOf(uint8_t code, KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kInt8:
      return FromInt8Code(code);
    case KvDtype::kInt4:
      return FromInt4Code(code);
    default:
      return FromFp8Code(code);
  }
}

// The definition of the format.
double Fp8Value(int code) {
  const int exponent = code >> 3 & 15;
  const int fraction = code & 7;
  const double magnitude = exponent == 0
                               ? std::ldexp(fraction, -9)
                               : std::ldexp(8 + fraction, exponent - 10);
  return code < 128 ? magnitude : -magnitude;
}

// The nearest of the codes of numbers, found by looking at all; of two, the
// even one.
uint8_t NearestFp8(double x) {
  int best = 0;
  for (int code = 0; code < 0x7F; ++code) {
    const double distance = std::fabs(Fp8Value(code) - std::fabs(x));
    const double least = std::fabs(Fp8Value(best) - std::fabs(x));
    if (distance < least || (distance == least && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(std::signbit(x) ? best | 0x80 : best);
}

TEST(Fp8Codes, HaveTheValuesOfTheFormat) {
  for (int code = 0; code < 256; ++code) {
    // 0x7F and 0xFF are NaN in the format; they are never written.
    if ((code & 0x7F) == 0x7F) continue;
    EXPECT_EQ(FromFp8Code(static_cast<uint8_t>(code)), Fp8Value(code)) << code;
    EXPECT_EQ(Fp8Code(static_cast<float>(Fp8Value(code))), code);
  }
}

TEST(Fp8Codes, AreTheNearestTiesToEven) {
  std::vector<float> values = {0.0f, 500.0f, 1e30f, 1e-30f, 0x1p-10f};
  for (int code = 0; code < 0x7E; ++code) {
    const auto middle =
        static_cast<float>((Fp8Value(code) + Fp8Value(code + 1)) / 2);
    values.insert(values.end(), {middle, std::nextafter(middle, 0.0f),
                                 std::nextafter(middle, 1000.0f)});
  }
  std::mt19937 random(1);
  std::uniform_real_distribution<float> exponents(-12.0f, 9.0f);
  for (int i = 0; i < 2000; ++i) values.push_back(std::exp2(exponents(random)));
  for (const float x : values) {
    EXPECT_EQ(Fp8Code(x), NearestFp8(x)) << x;
    EXPECT_EQ(Fp8Code(-x), NearestFp8(-x)) << -x;
  }
}

TEST(IntegerCodes, AreTheNearestTiesToEven) {
  for (int i = -16 * 140; i <= 16 * 140; ++i) {
    const float x = static_cast<float>(i) / 16;
    EXPECT_EQ(FromInt8Code(Int8Code(x)),
              std::clamp(std::nearbyint(x), -127.0f, 127.0f));
    EXPECT_EQ(FromInt4Code(Int4Code(x)),
              std::clamp(std::nearbyint(x), -7.0f, 7.0f));
  }
  EXPECT_EQ(Int8Code(0.0f), 128);
  EXPECT_EQ(Int8Code(-127.0f), 1);
  EXPECT_EQ(Int8Code(127.0f), 255);
  EXPECT_EQ(Int4Code(-7.0f), 1);
  EXPECT_EQ(Int4Code(7.0f), 15);
}

TEST(KvScaleFor, IsTheNearestHalf) {
  for (const KvDtype dtype : kQuantized) {
    for (float largest = 0.03f; largest < 1e5f; largest *= 1.37f) {
      const float exact = largest / LargestKvCode(dtype);
      const uint16_t scale = KvScaleFor(largest, dtype);
      // Halves of 10 fraction bits.
      EXPECT_NEAR(FloatFromHalf(scale), exact, exact * 0x1p-11f);
      EXPECT_EQ(InverseKvScale(scale), 1.0f / FloatFromHalf(scale));
    }
  }
}

TEST(KvScaleFor, IsZeroForZeroAndStaysFinite) {
  for (const KvDtype dtype : kQuantized) {
    EXPECT_EQ(KvScaleFor(0.0f, dtype), 0);
    EXPECT_EQ(KvScaleFor(1e-20f, dtype), 0);
    EXPECT_EQ(InverseKvScale(0), 0.0f);
    const uint16_t most = KvScaleFor(std::numeric_limits<float>::max(), dtype);
    EXPECT_EQ(FloatFromHalf(most), 65504.0f);
    // The smallest one has an inverse.
    EXPECT_EQ(InverseKvScale(1), 0x1p24f);
  }
}

TEST(KvScaleFor, IsNanForWhatIsNotFinite) {
  for (const KvDtype dtype : kQuantized) {
    for (const float x : {std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
      const uint16_t scale = KvScaleFor(x, dtype);
      EXPECT_TRUE(std::isnan(FloatFromHalf(scale)));
      const uint8_t code = CodeOf(x * InverseKvScale(scale), dtype);
      EXPECT_TRUE(std::isfinite(ValueOf(code, dtype)));
    }
  }
}

// A vector and back: no element is further off than half a step of its codes,
// and what the rounding of the scale clamps.
TEST(KvCodes, RoundTrip) {
  std::mt19937 random(2);
  for (const KvDtype dtype : kQuantized) {
    for (const float size : {1e-2f, 1.0f, 30.0f, 5000.0f}) {
      std::uniform_real_distribution<float> uniform(-size, size);
      std::vector<float> elements(256);
      float largest = 0;
      for (float& x : elements) {
        x = uniform(random);
        largest = std::max(largest, std::fabs(x));
      }
      const uint16_t scale = KvScaleFor(largest, dtype);
      const float step = FloatFromHalf(scale);
      for (const float x : elements) {
        const uint8_t code = CodeOf(x * InverseKvScale(scale), dtype);
        const float error = std::fabs(ValueOf(code, dtype) * step - x);
        const float half_step =
            dtype == KvDtype::kFp8E4m3
                ? std::max(std::fabs(x) * 0x1p-4f, step * 0x1p-10f)
                : step / 2;
        EXPECT_LE(error, half_step * 1.001f + largest * 0x1p-9f) << x;
      }
    }
  }
}

}  // namespace
}  // namespace headcount
