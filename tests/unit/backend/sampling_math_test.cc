#include "backend/sampling_math.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "tests/unit/backend/random_floats.h"

namespace headcount {
namespace {

TEST(SamplingMathTest, ExpIsWithinItsErrorAndNeverAboveOne) {
  EXPECT_EQ(ExpBelowOne(0.0f), 1.0f);
  EXPECT_EQ(ExpBelowOne(-0.0f), 1.0f);
  for (int i = 0; i < 8'700'000; i += 7) {
    const float x = static_cast<float>(i) * -1e-5f;
    const double exact = std::exp(double{x});
    ASSERT_NEAR(ExpBelowOne(x), exact, exact * 0x1p-22) << x;
    ASSERT_LE(ExpBelowOne(x), 1.0f) << x;
  }
  EXPECT_EQ(ExpBelowOne(-1e10f), 0.0f);
  EXPECT_EQ(ExpBelowOne(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_EQ(ExpBelowOne(std::numeric_limits<float>::quiet_NaN()), 0.0f);
}

TEST(SamplingMathTest, UnitsAreMultiplesOf2ToTheMinus40) {
  EXPECT_EQ(WeightUnits(1.0f), uint64_t{1} << kWeightBits);
  EXPECT_EQ(WeightUnits(0x1.8p-40f), 1u);
  EXPECT_EQ(WeightUnits(0x1.8p-41f), 0u);
}

TEST(SamplingMathTest, WantedWeightIsTheLeastThatReachesTheShare) {
  EXPECT_EQ(WantedWeight(0.5f, 10), 5u);
  EXPECT_EQ(WantedWeight(0.5f, 11), 6u);
  EXPECT_EQ(WantedWeight(0.25f, 9), 3u);
  EXPECT_EQ(WantedWeight(0.0f, 9), 1u);
}

TEST(SamplingMathTest, DrawPointIsTheShareRoundedDown) {
  TestRandom random(1);
  for (int i = 0; i < 100000; ++i) {
    const uint32_t uniform = static_cast<uint32_t>(random()) >> 8;
    const uint64_t sum =
        (uint64_t{random()} << 32 | random()) >> RandomInt(random, 1, 63);
    // In halves of 32 bits, by hand.
    const uint64_t low = uint64_t{uniform} * (sum & 0xFFFFFFFF);
    const uint64_t high = uint64_t{uniform} * (sum >> 32) + (low >> 32);
    const uint64_t expected = high << 8 | (low & 0xFFFFFFFF) >> 24;
    ASSERT_EQ(DrawPoint(uniform, sum), expected) << uniform << ' ' << sum;
  }
}

TEST(SamplingMathTest, PenaltiesDivideThenSubtract) {
  const TokenPenalties penalties{
      .repetition = 2.0f, .frequency = 0.25f, .presence = 0.5f};
  EXPECT_EQ(PenalisedLogit(3.0f, penalties, 0), 1.5f);
  EXPECT_EQ(PenalisedLogit(-3.0f, penalties, 0), -6.0f);
  EXPECT_EQ(PenalisedLogit(3.0f, penalties, 4), 0.0f);
}

}  // namespace
}  // namespace headcount
