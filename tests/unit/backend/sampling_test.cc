#include "backend/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/backend/random_floats.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

SampleResult Sample(const std::vector<float>& logits, const SampleRow& row) {
  std::vector<TokenLogprob> scratch;
  return SampleOne(logits, row, &scratch);
}

SampleRow Drawing(float temperature) {
  SampleRow row;
  row.temperature = temperature;
  return row;
}

// The definition, with full sorts: what `row` draws each token with.
std::vector<double> Distribution(const std::vector<float>& logits,
                                 const SampleRow& row) {
  std::vector<size_t> order;
  for (size_t i = 0; i < logits.size(); ++i) {
    const bool banned = std::count(row.banned.begin(), row.banned.end(), i) > 0;
    if (!banned && logits[i] != -kInfinity) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (row.top_k > 0 && order.size() > static_cast<size_t>(row.top_k)) {
    order.resize(static_cast<size_t>(row.top_k));
  }
  std::vector<double> p(logits.size(), 0.0);
  const auto normalise = [&] {
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) value /= sum;
  };
  for (const size_t i : order) {
    p[i] = std::exp((double{logits[i]} - logits[order[0]]) / row.temperature);
  }
  normalise();
  double sum = 0;
  for (const size_t i : order) {
    if (sum >= row.top_p) {
      p[i] = 0;
    } else {
      sum += p[i];
    }
  }
  normalise();
  const double highest = *std::max_element(p.begin(), p.end());
  for (double& value : p) {
    if (value < row.min_p * highest) value = 0;
  }
  normalise();
  return p;
}

// Draws `draws` times; the statistic over tokens that expect 10 draws or more
// (the others together), against the 99.99th percentile of chi-square in the
// approximation of Wilson and Hilferty.
void ExpectDistribution(const std::vector<float>& logits, SampleRow row) {
  constexpr int kDraws = 200000;
  const std::vector<double> p = Distribution(logits, row);
  std::vector<int> counts(logits.size(), 0);
  std::vector<TokenLogprob> scratch;
  for (int i = 0; i < kDraws; ++i) {
    row.position = static_cast<uint64_t>(i);
    const SampleResult result = SampleOne(logits, row, &scratch);
    ASSERT_TRUE(result.finite);
    ++counts[static_cast<size_t>(result.token)];
  }
  double statistic = 0;
  double rest_expected = 0;
  double rest_count = 0;
  int cells = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double expected = p[i] * kDraws;
    if (p[i] == 0) {
      ASSERT_EQ(counts[i], 0) << "token " << i;
    } else if (expected < 10) {
      rest_expected += expected;
      rest_count += counts[i];
    } else {
      const double difference = counts[i] - expected;
      statistic += difference * difference / expected;
      ++cells;
    }
  }
  if (rest_expected > 5) {
    const double difference = rest_count - rest_expected;
    statistic += difference * difference / rest_expected;
    ++cells;
  }
  if (cells < 2) return;
  const double n = cells - 1;
  const double limit =
      n * std::pow(1 - 2 / (9 * n) + 3.719 * std::sqrt(2 / (9 * n)), 3);
  EXPECT_LT(statistic, limit) << cells << " cells";
}

std::vector<float> RandomLogits(int count, uint32_t seed) {
  TestRandom random(seed);
  std::vector<float> logits = RandomFloats(random, count);
  for (float& logit : logits) logit *= 4;
  return logits;
}

TEST(SamplingTest, DrawsFromTheDistributionOfEveryFilter) {
  const std::vector<float> logits = RandomLogits(50, 1);
  SampleRow row = Drawing(1.0f);
  row.seed = 1234;
  ExpectDistribution(logits, row);
  row.temperature = 0.6f;
  ExpectDistribution(logits, row);
  row.temperature = 1.7f;
  row.top_k = 12;
  ExpectDistribution(logits, row);
  row.top_p = 0.8f;
  ExpectDistribution(logits, row);
  row.top_k = 0;
  ExpectDistribution(logits, row);
  row.min_p = 0.2f;
  ExpectDistribution(logits, row);
  row.top_p = 1;
  ExpectDistribution(logits, row);
}

TEST(SamplingTest, DrawsFromTheDistributionWithBannedAndMaskedTokens) {
  std::vector<float> logits = RandomLogits(300, 2);
  logits[3] = -kInfinity;
  const std::vector<int32_t> banned = {0, 7, 299, 7};
  SampleRow row = Drawing(1.2f);
  row.banned = banned;
  row.seed = 99;
  ExpectDistribution(logits, row);
  row.top_p = 0.9f;
  ExpectDistribution(logits, row);
}

TEST(SamplingTest, EqualLogitsAreDrawnUniformlyAndTiesGoToTheLowestIds) {
  const std::vector<float> logits(150, 2.5f);
  SampleRow row = Drawing(1.0f);
  ExpectDistribution(logits, row);
  row.top_k = 10;
  ExpectDistribution(logits, row);
  row.top_k = 0;
  row.top_p = 0.497f;
  ExpectDistribution(logits, row);
  row.min_p = 1.0f;
  ExpectDistribution(logits, row);
}

// Selection must find the same sets as sorting in a vocabulary where they are
// large, small and tied.
TEST(SamplingTest, FiltersKeepTheSameTokensAsAFullSort) {
  TestRandom random(4);
  std::vector<float> logits(5000);
  for (float& logit : logits) {
    logit = static_cast<float>(RandomInt(random, -40, 40)) / 8;
  }
  SampleRow row = Drawing(1.3f);
  for (const int top_k : {0, 1, 63, 64, 65, 1000, 4999, 5000, 9000}) {
    for (const float top_p : {0.01f, 0.5f, 0.95f, 0.999f, 1.0f}) {
      row.top_k = top_k;
      row.top_p = top_p;
      const std::vector<double> p = Distribution(logits, row);
      for (uint64_t i = 0; i < 20; ++i) {
        row.position = i;
        const int32_t token = Sample(logits, row).token;
        ASSERT_GT(p[static_cast<size_t>(token)], 0) << top_k << ", " << top_p;
      }
    }
  }
}

TEST(SamplingTest, GreedyTakesTheHighestLogitAndTheLowestIdAmongEquals) {
  SampleRow row;
  EXPECT_EQ(Sample({1, 3, 2, 3}, row).token, 1);
  const std::vector<int32_t> banned = {1};
  row.banned = banned;
  EXPECT_EQ(Sample({1, 3, 2, 3}, row).token, 3);
}

TEST(SamplingTest, SettingsThatLeaveOneTokenAreGreedy) {
  const std::vector<float> logits = RandomLogits(1000, 5);
  const int32_t best = Sample(logits, SampleRow()).token;
  for (uint64_t i = 0; i < 50; ++i) {
    SampleRow row = Drawing(1.5f);
    row.position = i;
    row.top_k = 1;
    EXPECT_EQ(Sample(logits, row).token, best);
    row.top_k = 0;
    row.top_p = 1e-6f;
    EXPECT_EQ(Sample(logits, row).token, best);
    row.top_p = 1;
    row.min_p = 1;
    EXPECT_EQ(Sample(logits, row).token, best);
    row.min_p = 0;
    row.temperature = 1e-6f;
    EXPECT_EQ(Sample(logits, row).token, best);
    row.temperature = 1e-45f;  // logits over it are infinite
    EXPECT_EQ(Sample(logits, row).token, best);
  }
}

TEST(SamplingTest, TheOnlyFiniteLogitIsDrawn) {
  std::vector<float> logits(40, -kInfinity);
  logits[23] = -5;
  SampleResult result = Sample(logits, Drawing(1));
  EXPECT_TRUE(result.finite);
  EXPECT_EQ(result.token, 23);
  EXPECT_EQ(result.logprob, 0.0f);
  EXPECT_EQ(Sample(logits, SampleRow()).token, 23);
}

TEST(SamplingTest, LogitsThatAreNotFiniteAreReported) {
  EXPECT_FALSE(Sample({0, kNan, 1}, Drawing(1)).finite);
  EXPECT_FALSE(Sample({kNan, 0, 1}, SampleRow()).finite);
  EXPECT_FALSE(Sample({0, kInfinity}, SampleRow()).finite);
  EXPECT_FALSE(Sample({-kInfinity, -kInfinity}, SampleRow()).finite);
  const std::vector<int32_t> all = {0, 1};
  SampleRow row;
  row.banned = all;
  const SampleResult result = Sample({0, 1}, row);
  EXPECT_FALSE(result.finite);
  EXPECT_EQ(result.token, -1);
  EXPECT_TRUE(Sample({0, -kInfinity}, SampleRow()).finite);
}

TEST(SamplingTest, LogprobsAreThoseOfTheUnscaledLogits) {
  const std::vector<float> logits = {1, 2, 4, 2, -kInfinity};
  const double log_sum = std::log(std::exp(1) + 2 * std::exp(2) + std::exp(4));
  SampleRow row = Drawing(0.1f);
  row.top_logprobs = 3;
  const SampleResult result = Sample(logits, row);
  EXPECT_EQ(result.token, 2);
  EXPECT_NEAR(result.logprob, 4 - log_sum, 1e-6);
  ASSERT_EQ(result.top.size(), 3u);
  EXPECT_EQ(result.top[0].token, 2);
  EXPECT_EQ(result.top[1].token, 1);
  EXPECT_EQ(result.top[2].token, 3);
  EXPECT_NEAR(result.top[1].logprob, 2 - log_sum, 1e-6);
  row.top_logprobs = 99;
  EXPECT_EQ(Sample(logits, row).top.size(), logits.size());
}

TEST(SamplingTest, ScoredTokensAreReportedAndNothingIsDrawn) {
  const std::vector<float> logits = {1, 2, 4, -kInfinity};
  const double log_sum = std::log(std::exp(1) + std::exp(2) + std::exp(4));
  const std::vector<int32_t> scored = {3, 0, 0};
  SampleRow row;
  row.scored = scored;
  const SampleResult result = Sample(logits, row);
  EXPECT_EQ(result.token, -1);
  ASSERT_EQ(result.scored.size(), 3u);
  EXPECT_EQ(result.scored[0], -kInfinity);
  EXPECT_NEAR(result.scored[1], 1 - log_sum, 1e-6);
  EXPECT_EQ(result.scored[1], result.scored[2]);
}

TEST(SamplingTest, LogprobsOfALargeVocabularyAreAccurate) {
  const std::vector<float> logits = RandomLogits(128000, 6);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit});
  const SampleResult result = Sample(logits, SampleRow());
  const double highest = *std::max_element(logits.begin(), logits.end());
  EXPECT_NEAR(result.logprob, highest - std::log(sum), 2e-6);
}

TEST(SamplingTest, TheDrawDependsOnSeedAndPositionAlone) {
  const std::vector<float> logits = RandomLogits(500, 7);
  SampleRow row = Drawing(1);
  row.seed = 5;
  std::vector<int32_t> first;
  std::vector<int32_t> second;
  std::vector<int32_t> other;
  for (uint64_t i = 0; i < 20; ++i) {
    row.position = i;
    row.seed = 5;
    first.push_back(Sample(logits, row).token);
    second.push_back(Sample(logits, row).token);
    row.seed = 6;
    other.push_back(Sample(logits, row).token);
  }
  EXPECT_EQ(first, second);
  EXPECT_NE(first, other);
}

}  // namespace
}  // namespace headcount
