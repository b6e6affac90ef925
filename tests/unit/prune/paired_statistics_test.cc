#include "prune/paired_statistics.h"

#include <cmath>

#include "gtest/gtest.h"

namespace headcount {
namespace {

TEST(McNemarExact, IsTheBinomialTail) {
  // 2 (1 + 10 + 45) / 2^10, by hand.
  EXPECT_NEAR(McNemarExact({.n = 100, .lost = 8, .gained = 2}), 112.0 / 1024,
              1e-12);
  EXPECT_NEAR(McNemarExact({.n = 100, .lost = 2, .gained = 8}), 112.0 / 1024,
              1e-12);
  // 2 / 2^6
  EXPECT_NEAR(McNemarExact({.n = 50, .lost = 6, .gained = 0}), 2.0 / 64, 1e-12);
  EXPECT_EQ(McNemarExact({.n = 100, .lost = 5, .gained = 5}), 1);
  EXPECT_EQ(McNemarExact({.n = 100}), 1);
}

TEST(McNemarExact, TakesCountsThatFactorialsCannot) {
  const double p =
      McNemarExact({.n = 100'000, .lost = 10'100, .gained = 9'900});
  // The normal approximation with continuity correction: z = 199 / sqrt(2e4).
  EXPECT_NEAR(p, std::erfc(199 / std::sqrt(2e4) / std::sqrt(2.0)), 1e-3);
}

// What no answer that differs can still hide has a closed form.
TEST(TangoBounds, WithoutADifferenceAreNotZero) {
  for (const int64_t n : {10, 100, 701}) {
    const Bounds bounds = TangoBounds({.n = n}, kOneSided95);
    const double z2 = kOneSided95 * kOneSided95;
    EXPECT_NEAR(bounds.high, z2 / (static_cast<double>(n) + z2), 1e-9);
    EXPECT_NEAR(bounds.low, -bounds.high, 1e-9);
  }
}

// Log-likelihood of the counts when losses are `gained_rate + delta`.
double LogLikelihood(const PairedCounts& counts, double gained_rate,
                     double delta) {
  const double lost_rate = gained_rate + delta;
  const double same_rate = 1 - gained_rate - lost_rate;
  const auto term = [](int64_t count, double rate) {
    return count == 0 ? 0 : static_cast<double>(count) * std::log(rate);
  };
  return term(counts.lost, lost_rate) + term(counts.gained, gained_rate) +
         term(counts.n - counts.lost - counts.gained, same_rate);
}

// The definition instead of the formula: at a bound, the rate of gains that a
// grid finds likeliest puts what was observed z deviations away.
TEST(TangoBounds, LieZDeviationsAway) {
  const PairedCounts counts{.n = 50, .lost = 12, .gained = 2};
  const Bounds bounds = TangoBounds(counts, kTwoSided95);
  for (const double delta : {bounds.low, bounds.high}) {
    double best = 0;
    double rate = 0;
    for (double r = 1e-5; r + r + delta < 1; r += 1e-5) {
      if (r + delta <= 0) continue;
      const double value = LogLikelihood(counts, r, delta);
      if (rate == 0 || value > best) {
        best = value;
        rate = r;
      }
    }
    const double n = 50;
    const double variance = n * (2 * rate + delta - delta * delta);
    EXPECT_NEAR(std::abs(10 - n * delta) / std::sqrt(variance), kTwoSided95,
                1e-2);
  }
  EXPECT_LT(bounds.low, 0.2);
  EXPECT_GT(bounds.high, 0.2);
}

TEST(BootstrapMean, IsCloseToTheNormalInterval) {
  std::vector<double> values;
  for (int i = 0; i < 1000; ++i) values.push_back(i % 10 == 0 ? 1.0 : 0.0);
  const Bounds bounds = BootstrapMean(values, 1);
  const double half = 1.96 * std::sqrt(0.1 * 0.9 / 1000);
  EXPECT_NEAR(bounds.low, 0.1 - half, 0.002);
  EXPECT_NEAR(bounds.high, 0.1 + half, 0.002);
}

TEST(BootstrapMean, RepeatsWithTheSeed) {
  const std::vector<double> values = {0.3, 1.5, -2.0, 0.25, 9.0, 4.5, 1.0};
  const Bounds a = BootstrapMean(values, 7);
  const Bounds b = BootstrapMean(values, 7);
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  EXPECT_NE(a.low, BootstrapMean(values, 8).low);
}

TEST(BootstrapMean, OfOneValueIsIt) {
  const Bounds bounds = BootstrapMean({2.5}, 1, 100);
  EXPECT_EQ(bounds.low, 2.5);
  EXPECT_EQ(bounds.high, 2.5);
}

// The rows of the table in which the arithmetic was first written down.
TEST(ExamplesToBound, FollowsTheTable) {
  struct Row {
    double rate;
    int64_t one_point, with_power, two_points, two_with_power;
  };
  for (const Row& row :
       {Row{0.01, 271, 619, 68, 155}, Row{0.02, 542, 1'238, 136, 310},
        Row{0.05, 1'354, 3'093, 339, 774},
        Row{0.10, 2'707, 6'186, 677, 1'547}}) {
    EXPECT_EQ(ExamplesToBound(row.rate, 0.01), row.one_point);
    EXPECT_EQ(ExamplesToBound(row.rate, 0.01, true), row.with_power);
    EXPECT_EQ(ExamplesToBound(row.rate, 0.02), row.two_points);
    EXPECT_EQ(ExamplesToBound(row.rate, 0.02, true), row.two_with_power);
  }
}

TEST(ExamplesToBound, SaysWhenNoNumberDoes) {
  EXPECT_EQ(ExamplesToBound(0.011, 1.7e-18), kNoExamplesDo);
  EXPECT_EQ(ExamplesToBound(0.01, 1e-200), kNoExamplesDo);
  EXPECT_EQ(ExamplesToBound(0, 1e-200), kNoExamplesDo);
  // 2.7e18, which can still be counted.
  EXPECT_NEAR(static_cast<double>(ExamplesToBound(1, 1e-9)), 2.706025e18, 1e10);
}

TEST(HalfWidth, FollowsTheTable) {
  EXPECT_NEAR(100 * HalfWidth(0.01, 100), 1.96, 0.005);
  EXPECT_NEAR(100 * HalfWidth(0.02, 300), 1.60, 0.005);
  EXPECT_NEAR(100 * HalfWidth(0.05, 500), 1.96, 0.005);
  EXPECT_NEAR(100 * HalfWidth(0.10, 2'000), 1.39, 0.005);
}

TEST(Jaccard, CountsWhatIsShared) {
  EXPECT_DOUBLE_EQ(
      Jaccard({true, true, false, false}, {true, false, true, false}), 1.0 / 3);
  EXPECT_EQ(Jaccard({false, false}, {false, false}), 1);
  EXPECT_EQ(Jaccard({true}, {true}), 1);
}

TEST(QuantileOf, IsTheNearestRank) {
  EXPECT_EQ(QuantileOf({5, 1, 4, 2, 3}, 0.5), 3);
  EXPECT_EQ(QuantileOf({5, 1, 4, 2, 3}, 0.95), 5);
  EXPECT_EQ(QuantileOf({}, 0.5), 0);
}

}  // namespace
}  // namespace headcount
