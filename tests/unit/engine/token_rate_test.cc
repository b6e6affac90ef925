#include "engine/token_rate.h"

#include "gtest/gtest.h"

namespace headcount {
namespace {

TEST(TokenRateTest, ASteadyStreamHasItsRate) {
  TokenRate rate;
  absl::Time now = absl::UnixEpoch();
  for (int i = 0; i < 10000; ++i) {
    now += absl::Milliseconds(10);
    rate.Add(now, 3);
  }
  EXPECT_NEAR(rate.At(now), 300, 3);
}

TEST(TokenRateTest, TheRateFadesWhenNothingComes) {
  TokenRate rate;
  const absl::Time now = absl::UnixEpoch();
  rate.Add(now, 1000);
  EXPECT_NEAR(rate.At(now), 100, 1e-9);
  EXPECT_NEAR(rate.At(now + absl::Seconds(10)), 100 / 2.718281828, 1e-6);
  EXPECT_NEAR(rate.At(now + absl::Hours(1)), 0, 1e-9);
}

}  // namespace
}  // namespace headcount
