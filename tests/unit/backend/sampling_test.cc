#include "backend/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/backend/sample_rows.h"

namespace headcount {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// By hand: 3 / 1.5 = 2 and -1 * 1.5 = -1.5 (Keskar et al. 2019 in the form of
// Hugging Face); 0.5 for each of two times and 0.25 once (OpenAI).
TEST(SamplingTest, PenaltiesAreThoseOfTheExample) {
  const std::vector<float> logits = {3.0f, -1.0f, 2.5f, 1.0f};
  const std::vector<TokenUse> prompt = {{0, 0}, {1, 0}};
  const std::vector<TokenUse> answer = {{2, 2}};
  SampleRow row;
  row.top_logprobs = 4;
  EXPECT_EQ(Sample(logits, row).token, 0);
  row.repetition_penalty = 1.5f;
  row.uses = prompt;
  EXPECT_EQ(Sample(logits, row).token, 2);
  // Those of the prompt count for no other penalty.
  row.repetition_penalty = 1;
  row.presence_penalty = 2;
  row.frequency_penalty = 2;
  EXPECT_EQ(Sample(logits, row).token, 0);
  // 2.5 - 2 * 0.5 - 0.25 = 1.25, over 1.2 and under 1.3.
  row.uses = answer;
  row.frequency_penalty = 0.5f;
  row.presence_penalty = 0.25f;
  std::vector<TokenBias> biases = {{0, -kInfinity}, {3, 0.2f}};
  row.biases = biases;
  EXPECT_EQ(Sample(logits, row).token, 2);
  biases[1].bias = 0.3f;
  const SampleResult result = Sample(logits, row);
  EXPECT_EQ(result.token, 3);
  // Log-probabilities stay the model's own.
  EXPECT_EQ(result.top[0].token, 0);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit);
  EXPECT_NEAR(result.logprob, 1 - std::log(sum), 1e-6);
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
  EXPECT_TRUE(Sample({0, -kInfinity}, SampleRow()).finite);
}

TEST(SamplingTest, SaysWhenNoTokenMayBeDrawn) {
  const std::vector<int32_t> all = {0, 1};
  const std::vector<int32_t> first = {0};
  for (const float temperature : {0.0f, 1.0f}) {
    SampleRow row = Drawing(temperature);
    row.banned = all;
    EXPECT_EQ(Sample({0, 1}, row).token, -1);
    EXPECT_TRUE(Sample({0, 1}, row).finite);
    row.banned = first;
    row.allowed = first;
    EXPECT_EQ(Sample({0, 1}, row).token, -1);
    row.banned = {};
    EXPECT_EQ(Sample({-kInfinity, 1}, row).token, -1);
    EXPECT_EQ(Sample({0, 1}, row).token, 0);
  }
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
