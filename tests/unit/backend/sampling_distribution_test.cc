// Frequencies of drawn tokens against the probabilities that the definition of
// each filter gives.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "backend/sampling.h"
#include "gtest/gtest.h"
#include "tests/unit/backend/random_floats.h"
#include "tests/unit/backend/sample_rows.h"

namespace headcount {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Penalties, bias and exclusions over dense arrays of the vocabulary, by the
// formulas of their sources (see sampling.h).
std::vector<double> Adjusted(const std::vector<float>& logits,
                             const SampleRow& row) {
  const size_t vocab = logits.size();
  std::vector<bool> used(vocab, false);
  std::vector<double> counts(vocab, 0);
  for (const TokenUse& use : row.uses) {
    used[static_cast<size_t>(use.token)] = true;
    counts[static_cast<size_t>(use.token)] = use.generated;
  }
  std::vector<double> bias(vocab, 0);
  for (const TokenBias& entry : row.biases) {
    bias[static_cast<size_t>(entry.token)] = entry.bias;
  }
  std::vector<double> out(vocab);
  for (size_t i = 0; i < vocab; ++i) {
    double logit = logits[i];
    const double penalty = used[i] ? row.repetition_penalty : 1.0;
    logit = logit > 0 ? logit / penalty : logit * penalty;
    logit -= row.frequency_penalty * counts[i];
    logit -= row.presence_penalty * (counts[i] > 0 ? 1 : 0);
    logit += bias[i];
    const auto id = static_cast<int32_t>(i);
    const bool out_of_reach =
        std::count(row.banned.begin(), row.banned.end(), id) > 0 ||
        (!row.allowed.empty() &&
         std::count(row.allowed.begin(), row.allowed.end(), id) == 0);
    out[i] = out_of_reach ? -kInfinity : logit;
  }
  return out;
}

// The definition, with full sorts: what `row` draws each token with.
std::vector<double> Distribution(const std::vector<float>& unadjusted,
                                 const SampleRow& row) {
  const std::vector<double> logits = Adjusted(unadjusted, row);
  std::vector<size_t> order;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] != -kInfinity) order.push_back(i);
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
    p[i] = std::exp((logits[i] - logits[order[0]]) / row.temperature);
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

constexpr int kFewDraws = 50000;

// Draws `draws` times; the statistic over tokens that expect 10 draws or more
// (the others together), against the 99.99th percentile of chi-square in the
// approximation of Wilson and Hilferty.
void ExpectDistribution(const std::vector<float>& logits, SampleRow row,
                        int draws = 200000) {
  const std::vector<double> p = Distribution(logits, row);
  std::vector<int> counts(logits.size(), 0);
  SampleScratch scratch;
  for (int i = 0; i < draws; ++i) {
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
    const double expected = p[i] * draws;
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

TEST(SamplingDistributionTest, DrawsFromTheDistributionOfEveryFilter) {
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

TEST(SamplingDistributionTest,
     DrawsFromTheDistributionWithBannedAndMaskedTokens) {
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

// A history of 40 tokens over the first 30 ids, the later half generated.
std::vector<TokenUse> SomeUses() {
  TestRandom random(11);
  std::vector<TokenUse> uses(30);
  for (int32_t i = 0; i < 30; ++i) uses[static_cast<size_t>(i)].token = i;
  for (int i = 0; i < 20; ++i) {
    ++uses[static_cast<size_t>(RandomInt(random, 0, 29))].generated;
  }
  return uses;
}

TEST(SamplingDistributionTest, DrawsFromTheDistributionOfEachPenaltyAlone) {
  const std::vector<float> logits = RandomLogits(50, 8);
  const std::vector<TokenUse> uses = SomeUses();
  SampleRow row = Drawing(1.0f);
  row.seed = 17;
  row.uses = uses;
  for (const float penalty : {0.5f, 1.3f, 4.0f}) {
    row.repetition_penalty = penalty;
    ExpectDistribution(logits, row, kFewDraws);
  }
  row.repetition_penalty = 1;
  for (const float penalty : {-1.5f, 0.4f, 2.0f}) {
    row.frequency_penalty = penalty;
    ExpectDistribution(logits, row, kFewDraws);
  }
  row.frequency_penalty = 0;
  for (const float penalty : {-1.5f, 0.4f, 2.0f}) {
    row.presence_penalty = penalty;
    ExpectDistribution(logits, row, kFewDraws);
  }
}

TEST(SamplingDistributionTest, DrawsFromTheDistributionWithBiases) {
  const std::vector<float> logits = RandomLogits(50, 9);
  const std::vector<TokenBias> biases = {
      {0, 3.0f}, {7, -2.5f}, {12, -kInfinity}, {49, 0.25f}};
  SampleRow row = Drawing(0.9f);
  row.seed = 18;
  row.biases = biases;
  ExpectDistribution(logits, row, kFewDraws);
  row.top_k = 9;
  ExpectDistribution(logits, row, kFewDraws);
}

TEST(SamplingDistributionTest, DrawsFromTheDistributionOfAllStepsTogether) {
  const std::vector<float> logits = RandomLogits(120, 10);
  const std::vector<TokenUse> uses = SomeUses();
  const std::vector<TokenBias> biases = {{3, 2.0f}, {60, 4.0f}, {90, -3.0f}};
  std::vector<int32_t> allowed;
  for (int32_t i = 0; i < 120; i += 3) allowed.push_back(i);
  const std::vector<int32_t> banned = {9, 6};
  SampleRow row = Drawing(1.4f);
  row.seed = 19;
  row.repetition_penalty = 1.2f;
  row.frequency_penalty = 0.3f;
  row.presence_penalty = -0.6f;
  row.uses = uses;
  row.biases = biases;
  ExpectDistribution(logits, row, kFewDraws);
  row.banned = banned;
  ExpectDistribution(logits, row, kFewDraws);
  row.top_k = 25;
  ExpectDistribution(logits, row, kFewDraws);
  row.top_p = 0.9f;
  ExpectDistribution(logits, row, kFewDraws);
  row.min_p = 0.05f;
  ExpectDistribution(logits, row, kFewDraws);
  row.allowed = allowed;
  ExpectDistribution(logits, row, kFewDraws);
}

TEST(SamplingDistributionTest, AllowedTokensKeepTheirConditionalProbabilities) {
  const std::vector<float> logits = RandomLogits(1000, 12);
  const std::vector<int32_t> allowed = {0, 17, 18, 500, 999};
  SampleRow row = Drawing(2.0f);
  row.allowed = allowed;
  ExpectDistribution(logits, row, kFewDraws);
  row.temperature = 0;
  const int32_t greedy = Sample(logits, row).token;
  for (const int32_t token : allowed) {
    EXPECT_GE(logits[static_cast<size_t>(greedy)],
              logits[static_cast<size_t>(token)]);
  }
  EXPECT_EQ(std::count(allowed.begin(), allowed.end(), greedy), 1);
}

TEST(SamplingDistributionTest,
     EqualLogitsAreDrawnUniformlyAndTiesGoToTheLowestIds) {
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
TEST(SamplingDistributionTest, FiltersKeepTheSameTokensAsAFullSort) {
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

}  // namespace
}  // namespace headcount
