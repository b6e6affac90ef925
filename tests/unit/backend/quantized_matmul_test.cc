// Products with weights that stay quantised: MatMul over what Pack made.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/backend/quantized_products.h"
#include "tests/unit/backend/random_floats.h"
#include "tests/unit/backend/simd_targets.h"

namespace headcount {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(QuantizedMatMulTest, AgreesWithDoublePrecisionForEveryType) {
  ForEachSimdTarget(
      [] {
        TestRandom random(6);
        for (const ElementType type : kTypes) {
          SCOPED_TRACE(ElementTypeName(type));
          const Tensor tensor(random, type, 83, 768);
          for (const bool wide : {false, true}) {
            ExpectProductIsRight(*PackOrDie(Whole(tensor, wide)), /*rows=*/3,
                                 random);
          }
        }
      },
      HWY_AVX3_DL);
}

TEST(QuantizedMatMulTest, AgreesWithDoublePrecisionForEveryNumberOfRows) {
  ForEachSimdTarget(
      [] {
        TestRandom random(7);
        for (const ElementType type :
             {ElementType::kQ4_1, ElementType::kQ8_0}) {
          SCOPED_TRACE(ElementTypeName(type));
          const Tensor tensor(random, type, 47, 96);
          for (const bool wide : {false, true}) {
            const auto w = PackOrDie(Whole(tensor, wide));
            for (int64_t rows = 1; rows <= 33; ++rows) {
              ExpectProductIsRight(*w, rows, random);
            }
          }
        }
      },
      HWY_AVX3_DL);
}

// More columns than a group of blocks has, and more rows than a task.
TEST(QuantizedMatMulTest, AgreesWithDoublePrecisionForOddSizes) {
  ForEachSimdTarget(
      [] {
        TestRandom random(8);
        for (int i = 0; i < 12; ++i) {
          const ElementType type =
              i % 2 == 0 ? ElementType::kQ4_0 : ElementType::kQ8_0;
          const Tensor tensor(random, type, RandomInt(random, 1, 200),
                              32 * RandomInt(random, 1, 80));
          ExpectProductIsRight(*PackOrDie(Whole(tensor, i % 4 < 2)),
                               RandomInt(random, 1, 60), random);
        }
      },
      HWY_AVX3_DL);
}

// Rounding x to steps of s makes an error of variance s^2 / 12 an element.
TEST(QuantizedMatMulTest, IsAsFarFromFloat32AsRoundingTheRowsMakesIt) {
  TestRandom random(9);
  for (const ElementType type : {ElementType::kQ4_1, ElementType::kQ8_0}) {
    for (const bool wide : {false, true}) {
      SCOPED_TRACE(testing::Message() << ElementTypeName(type) << " " << wide);
      const Tensor tensor(random, type, 256, 512);
      const int64_t rows = 16;
      const std::vector<float> x = RandomFloats(random, rows * 512);
      const auto fast = PackOrDie(Whole(tensor, wide));
      const auto exact = PackOrDie(Whole(tensor, wide), Precision::kExact);
      const std::vector<float> near = Multiply(*fast, x.data(), rows);
      const std::vector<float> reference = Multiply(*exact, x.data(), rows);
      const double step = 1.0 / LargestInput(*fast);  // of uniform x, about
      double error = 0;
      double expected = 0;
      for (int64_t n = 0; n < 256; ++n) {
        double variance = 0;
        for (int64_t k = 0; k < 512; ++k) {
          const double weight = tensor.values[Index(n * 512 + k)];
          variance += weight * weight * step * step / 12;
        }
        for (int64_t r = 0; r < rows; ++r) {
          const auto i = Index(r * 256 + n);
          const double difference = double{near[i]} - reference[i];
          EXPECT_LT(std::abs(difference), 6 * std::sqrt(variance));
          error += difference * difference;
          expected += variance;
        }
      }
      EXPECT_GT(error, 0.7 * expected);
      EXPECT_LT(error, 1.1 * expected);
    }
  }
}

class QuantizedMatMulBitsTest
    : public testing::TestWithParam<std::tuple<ElementType, bool>> {};

TEST_P(QuantizedMatMulBitsTest, ARowHasTheSameAloneInCompanyAndOnEveryTarget) {
  const auto [type, wide] = GetParam();
  TestRandom random(10);
  const int64_t inputs = 1120;
  const int64_t outputs = 200;
  const int64_t rows = 70;
  const Tensor tensor(random, type, outputs, inputs);
  const auto w = PackOrDie(Whole(tensor, wide));
  const std::vector<float> x = RandomFloats(random, rows * inputs);
  std::vector<float> alone;
  for (int64_t r = 0; r < rows; ++r) {
    const std::vector<float> out = Multiply(*w, x.data() + r * inputs, 1);
    alone.insert(alone.end(), out.begin(), out.end());
  }
  ForEachSimdTarget(
      [&] {
        // Plain C++ is slow.
        const bool plain = hwy::SupportedTargets() == HWY_STATIC_TARGET;
        for (int64_t count = 1; count <= rows; count += plain ? 10 : 1) {
          const int64_t first = RandomInt(random, 0, int(rows - count));
          const std::vector<float> out = Multiply(
              *w, x.data() + first * inputs, count, count % 2 == 0 ? 3 : 1);
          ASSERT_EQ(std::memcmp(out.data(), alone.data() + first * outputs,
                                out.size() * sizeof(float)),
                    0)
              << count << " rows from " << first;
        }
      },
      HWY_AVX3_DL);
}

INSTANTIATE_TEST_SUITE_P(AllWidths, QuantizedMatMulBitsTest,
                         testing::Combine(testing::Values(ElementType::kQ4_1,
                                                          ElementType::kQ8_0),
                                          testing::Bool()));

// Weights and rows at their limits, where 16-bit sums are fullest.
TEST(QuantizedMatMulTest, TheLargestIntegersDoNotSaturate) {
  struct Case {
    ElementType type;
    std::byte bytes;  // of all weights
    float weight;
  };
  const Case cases[] = {
      {ElementType::kQ4_1, std::byte{0xFF}, 15 - 3},  // minimum -3
      {ElementType::kQ4_0, std::byte{0x00}, -8},
      {ElementType::kQ4_0, std::byte{0xFF}, 7},
      {ElementType::kQ8_0, std::byte{0x80}, -128},
      {ElementType::kQ8_0, std::byte{0x7F}, 127},
      {ElementType::kQ8_0, std::byte{0x00}, 0},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << ElementTypeName(c.type) << " "
                                    << std::to_integer<int>(c.bytes));
    TestRandom random(11);
    Tensor tensor(random, c.type, 32, 64);
    std::fill(tensor.bytes.begin(), tensor.bytes.end(), c.bytes);
    for (size_t i = 0; i < tensor.bytes.size();
         i += Index(BlockOf(c.type).bytes)) {
      PutHalf(1, &tensor.bytes[i]);
      if (c.type == ElementType::kQ4_1) PutHalf(-3, &tensor.bytes[i + 2]);
    }
    for (const bool wide : {false, true}) {
      const auto w = PackOrDie(Whole(tensor, wide));
      const float largest = LargestInput(*w);
      for (const float value : {largest, -largest}) {
        const std::vector<float> x(64 * 5, value);
        ForEachSimdTarget(
            [&] {
              const std::vector<float> expected(32 * 5, 64 * value * c.weight);
              EXPECT_EQ(Multiply(*w, x.data(), 5), expected);
            },
            HWY_AVX3_DL);
      }
    }
  }
}

// The second byte of two reaches -128, which the first and only one does not.
TEST(QuantizedMatMulTest, TheLowestSecondBytesDoNotSaturate) {
  TestRandom random(14);
  Tensor tensor(random, ElementType::kQ4_1, 32, 64);
  std::fill(tensor.bytes.begin(), tensor.bytes.end(), std::byte{0xFF});
  for (size_t i = 0; i < tensor.bytes.size();
       i += Index(BlockOf(ElementType::kQ4_1).bytes)) {
    PutHalf(1, &tensor.bytes[i]);
    PutHalf(0, &tensor.bytes[i + 2]);
  }
  const auto w = PackOrDie(Whole(tensor, /*wide_input=*/true));
  std::vector<float> x(64, 126 * 256 - 128);
  x[0] = x[32] = LargestInput(*w);
  float sum = 0;
  for (const float value : x) sum += value;
  ForEachSimdTarget(
      [&] {
        EXPECT_EQ(Multiply(*w, x.data(), 1), std::vector<float>(32, 15 * sum));
      },
      HWY_AVX3_DL);
}

TEST(QuantizedMatMulTest, WhatIsNotFiniteStaysInItsRow) {
  TestRandom random(12);
  const Tensor four(random, ElementType::kQ4_1, 40, 96);
  const Tensor eight(random, ElementType::kQ8_0, 40, 96);
  for (int i = 0; i < 4; ++i) {
    const auto w = PackOrDie(Whole(i < 2 ? four : eight, i % 2 == 0));
    ForEachSimdTarget(
        [&] {
          std::vector<float> x = RandomFloats(random, 4 * 96);
          const std::vector<float> before = Multiply(*w, x.data(), 4);
          x[96 + 40] = kNaN;
          x[2 * 96 + 3] = -kInfinity;
          std::fill_n(&x[3 * 96], 96, 1e-40f);
          const std::vector<float> out = Multiply(*w, x.data(), 4);
          for (size_t n = 0; n < 40; ++n) {
            EXPECT_EQ(out[n], before[n]);
            EXPECT_TRUE(std::isnan(out[40 + n]));
            EXPECT_TRUE(std::isnan(out[80 + n]));
            EXPECT_EQ(out[120 + n], 0);
          }
        },
        HWY_AVX3_DL);
  }
}

// A damaged file must not look like a working model.
TEST(QuantizedMatMulTest, AScaleThatIsNotFiniteReachesTheOutput) {
  TestRandom random(13);
  for (const ElementType type : kTypes) {
    SCOPED_TRACE(ElementTypeName(type));
    Tensor tensor(random, type, 33, 256);
    const size_t at = type == ElementType::kQ6_K ? 208 : 0;
    PutHalf(kNaN, &tensor.bytes[at]);
    const std::vector<float> x = RandomFloats(random, 256);
    const std::vector<float> out =
        Multiply(*PackOrDie(Whole(tensor)), x.data(), 1);
    EXPECT_TRUE(std::isnan(out[0]));
    for (size_t n = 1; n < out.size(); ++n) EXPECT_TRUE(std::isfinite(out[n]));
  }
}

}  // namespace
}  // namespace headcount
