// Scores and choices through the engine, against probabilities of one direct
// Forward.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/model.h"
#include "tests/unit/engine/engine_fixture.h"

namespace headcount {
namespace {

using ::testing::SizeIs;

std::unique_ptr<Engine> MakeMailroom(const Clock* clock,
                                     int32_t step_tokens = 32) {
  return MakeEngine({{.path = MailroomPath()}},
                    {.kv_pool_bytes = 8 * kSlab,
                     .step_tokens = step_tokens,
                     .max_queued_requests = 10000,
                     .max_queued_tokens = 1000000},
                    clock);
}

// Of each token of `continuation` after `prompt`.
std::vector<double> Expected(const DirectScores& direct,
                             const std::vector<int32_t>& prompt,
                             const std::vector<int32_t>& continuation) {
  std::vector<int32_t> tokens = prompt;
  tokens.insert(tokens.end(), continuation.begin(), continuation.end());
  const std::vector<std::vector<double>> rows = direct.Of(tokens);
  std::vector<double> out;
  for (size_t i = 0; i < continuation.size(); ++i) {
    const auto id = static_cast<size_t>(continuation[i]);
    out.push_back(rows[prompt.size() - 1 + i][id]);
  }
  return out;
}

void ExpectScores(const Request& request, const Heard& heard) {
  const DirectScores direct;
  ASSERT_THAT(heard.scores, SizeIs(1));
  const std::vector<std::vector<float>>& scores = heard.scores[0].logprobs;
  ASSERT_EQ(scores.size(), request.continuations.size());
  for (size_t k = 0; k < scores.size(); ++k) {
    const std::vector<double> expected =
        Expected(direct, request.prompt, request.continuations[k]);
    ASSERT_EQ(scores[k].size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(scores[k][i], expected[i], kScoreError) << k << ", " << i;
    }
  }
  EXPECT_THAT(heard.tokens, SizeIs(0));
  EXPECT_EQ(heard.ending().cause, EndCause::kLength);
  EXPECT_EQ(heard.ending().generated_tokens, 0);
}

TEST(EngineScoreTest, CandidatesHaveTheirProbabilitiesAndSharePromptWork) {
  const Request request = MakeScoreRequest(
      MailTokens(3, 70),
      {MailTokens(73, 30), {370}, {5, 6}, MailTokens(10, 25), {364}});
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeMailroom(&clock);
  const Heard heard = RunAll(engine.get(), {request}).front();
  ExpectScores(request, heard);
  // The prompt once, and each candidate but its last token.
  EXPECT_EQ(engine->Snapshot().step_tokens, 70u + 29 + 1 + 24);
  EXPECT_EQ(engine->Snapshot().pool.used, 0);
  EXPECT_EQ(heard.ending().prompt_tokens, 70 + 30 + 1 + 2 + 25 + 1);
}

TEST(EngineScoreTest, ALongTextIsScoredInPieces) {
  // 64 rows of logits a step at most.
  const Request request =
      MakeScoreRequest(MailTokens(0, 1), {MailTokens(1, 250)});
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeMailroom(&clock, 256);
  const Heard heard = RunAll(engine.get(), {request}).front();
  ExpectScores(request, heard);
  EXPECT_GE(engine->Snapshot().steps, 4u);
}

TEST(EngineScoreTest, WithoutAContinuationThereIsNothingToTell) {
  const Request request = MakeScoreRequest({5}, {});
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeMailroom(&clock);
  const Heard heard = RunAll(engine.get(), {request}).front();
  EXPECT_THAT(heard.scores, SizeIs(0));
  EXPECT_EQ(heard.ending().cause, EndCause::kLength);
}

struct Choosing {
  std::vector<int32_t> prompt;
  std::vector<std::vector<int32_t>> choices;
  double temperature = 1;
  std::vector<int32_t> end_ids;
};

// The probability of each choice, by walking down all of them: at each token,
// the model's distribution is restricted to what leads to a choice.
std::vector<double> ChoiceProbabilities(const Choosing& choosing) {
  const DirectScores direct;
  std::vector<double> result(choosing.choices.size(), 0);
  const std::function<void(std::vector<int32_t>, double)> walk =
      [&](const std::vector<int32_t>& taken, double probability) {
        std::map<int32_t, std::vector<size_t>> next;
        std::vector<size_t> whole;
        for (size_t i = 0; i < choosing.choices.size(); ++i) {
          const std::vector<int32_t>& choice = choosing.choices[i];
          if (choice.size() < taken.size() ||
              !std::equal(taken.begin(), taken.end(), choice.begin())) {
            continue;
          }
          if (choice.size() == taken.size()) {
            whole.push_back(i);
          } else {
            next[choice[taken.size()]].push_back(i);
          }
        }
        if (next.empty()) {
          result[whole[0]] += probability;
          return;
        }
        if (!whole.empty()) {
          for (const int32_t id : choosing.end_ids) next[id];
        }
        std::vector<int32_t> tokens = choosing.prompt;
        tokens.insert(tokens.end(), taken.begin(), taken.end());
        const std::vector<double> row = direct.Of(tokens).back();
        double sum = 0;
        for (const auto& [token, where] : next) {
          sum +=
              std::exp(row[static_cast<size_t>(token)] / choosing.temperature);
        }
        for (const auto& [token, where] : next) {
          const double p =
              probability *
              std::exp(row[static_cast<size_t>(token)] / choosing.temperature) /
              sum;
          if (where.empty()) {
            result[whole[0]] += p;
            continue;
          }
          std::vector<int32_t> longer = taken;
          longer.push_back(token);
          walk(longer, p);
        }
      };
  walk({}, 1);
  return result;
}

TEST(EngineScoreTest, ChoicesAreDrawnWithTheirConditionalProbabilities) {
  constexpr int kDraws = 3000;
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeMailroom(&clock, 256);
  Choosing choosing{
      .prompt = MailTokens(0, 6),
      .choices = {{364, 370}, {364}, {364, 371, 5}, {5, 6, 7}, {80}, {5, 6}},
      .temperature = 2.5,
      .end_ids = engine->model(0)->model->config().eos_ids};
  ASSERT_FALSE(choosing.end_ids.empty());
  const std::vector<double> p = ChoiceProbabilities(choosing);
  std::vector<Request> requests;
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    Request request = MakeRequest(choosing.prompt, 4);
    request.sampling.temperature = static_cast<float>(choosing.temperature);
    request.sampling.seed = seed;
    request.sampling.choices = choosing.choices;
    requests.push_back(std::move(request));
  }
  std::vector<int> counts(p.size(), 0);
  for (const Heard& heard : RunAll(engine.get(), requests)) {
    ASSERT_TRUE(heard.ending().choice.has_value());
    const auto choice = static_cast<size_t>(*heard.ending().choice);
    std::vector<int32_t> ids = heard.ids();
    if (heard.ending().stop_id) ids.pop_back();
    EXPECT_EQ(ids, choosing.choices[choice]);
    EXPECT_EQ(heard.ending().cause, EndCause::kStop);
    ++counts[choice];
  }
  double statistic = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double expected = p[i] * kDraws;
    EXPECT_GT(expected, 10) << "choice " << i << " is too rare to tell";
    statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(statistic, 25.7);  // 99.99th percentile for 5 degrees of freedom
}

TEST(EngineScoreTest, AGreedyChoiceTakesTheLikeliestTokenAtEachPlace) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeMailroom(&clock);
  const DirectScores direct;
  for (size_t start = 0; start < 20; ++start) {
    Request request = MakeRequest(MailTokens(start, 12), 1);
    for (int32_t id = 300; id < 310; ++id) {
      request.sampling.choices.push_back({id});
    }
    const std::vector<double> row = direct.Of(request.prompt).back();
    const Heard heard = RunAll(engine.get(), {request}).front();
    for (int32_t id = 300; id < 310; ++id) {
      EXPECT_LE(row[static_cast<size_t>(id)],
                row[static_cast<size_t>(heard.ids().front())] + kScoreError);
    }
  }
}

}  // namespace
}  // namespace headcount
