// Rows of log-probabilities that one request keeps and others are compared
// with.
#include <cmath>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/model.h"
#include "tests/unit/engine/engine_fixture.h"

namespace headcount {
namespace {

using ::testing::Each;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr size_t kPrompt = 40;
constexpr size_t kTarget = 30;

Request ScoreTarget() {
  return MakeScoreRequest(MailTokens(3, kPrompt),
                          {MailTokens(3 + kPrompt, kTarget)});
}

Request Gated(const Engine& engine, float gate) {
  Request request = ScoreTarget();
  request.head_gates.assign(
      static_cast<size_t>(engine.model(0)->model->layout().dense_query_heads()),
      1.0f);
  request.head_gates[5] = gate;
  request.head_gates[40] = gate;
  return request;
}

std::shared_ptr<LogprobRows> MakeRows(const Engine& engine) {
  return std::make_shared<LogprobRows>(
      kTarget, static_cast<size_t>(engine.model(0)->model->config().vocab));
}

// Keeps the rows of `request`.
std::shared_ptr<const LogprobRows> Keep(Engine* engine, Request request) {
  const auto rows = MakeRows(*engine);
  request.kept_rows = rows;
  EXPECT_THAT(RunAll(engine, {request}).front().scores, SizeIs(1));
  return rows;
}

TEST(EngineRowsTest, KeptRowsAreTheDistributionsAtEachPlace) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeSmallStepMailroom(&clock);
  const auto kept = Keep(engine.get(), ScoreTarget());
  const DirectScores direct;
  const std::vector<std::vector<double>> expected =
      direct.Of(MailTokens(3, kPrompt + kTarget));
  for (size_t place = 0; place < kTarget; ++place) {
    const std::vector<double>& row = expected[kPrompt - 1 + place];
    for (size_t token = 0; token < row.size(); ++token) {
      ASSERT_NEAR(kept->Row(place)[token], row[token], kScoreError)
          << place << ", " << token;
    }
  }
}

TEST(EngineRowsTest, GatesOfOneAreNoDistanceAway) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeSmallStepMailroom(&clock);
  Request same = Gated(*engine, 1);
  same.reference_rows = Keep(engine.get(), ScoreTarget());
  const Heard heard = RunAll(engine.get(), {same}).front();
  ASSERT_THAT(heard.scores, SizeIs(1));
  EXPECT_THAT(heard.scores[0].divergences, SizeIs(kTarget));
  EXPECT_THAT(heard.scores[0].divergences, Each(0.0));
}

TEST(EngineRowsTest, TheDivergenceIsThatOfTheTwoDistributions) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeSmallStepMailroom(&clock);
  Request gated = Gated(*engine, 0);
  const auto dense_rows = Keep(engine.get(), ScoreTarget());
  const auto gated_rows = Keep(engine.get(), gated);
  gated.reference_rows = dense_rows;
  // In company of others without rows.
  const std::vector<Heard> heard =
      RunAll(engine.get(), {ScoreTarget(), gated, ScoreTarget()});
  EXPECT_THAT(heard[0].scores[0].divergences, IsEmpty());
  const std::vector<double>& told = heard[1].scores[0].divergences;
  ASSERT_THAT(told, SizeIs(kTarget));
  double total = 0;
  for (size_t place = 0; place < kTarget; ++place) {
    const absl::Span<const float> p = dense_rows->Row(place);
    const absl::Span<const float> q = std::as_const(*gated_rows).Row(place);
    double expected = 0;
    for (size_t token = 0; token < p.size(); ++token) {
      expected += std::exp(double{p[token]}) * (double{p[token]} - q[token]);
    }
    EXPECT_NEAR(told[place], expected, 1e-6);
    total += expected;
  }
  EXPECT_GT(total, 1e-3);
}

TEST(EngineRowsTest, PreemptionCountsNoPlaceTwice) {
  const SystemClock clock;
  // Room for about one sequence: the others push it out of the pool.
  const std::unique_ptr<Engine> roomy = MakeSmallStepMailroom(&clock);
  const auto dense_rows = Keep(roomy.get(), ScoreTarget());
  Request gated = Gated(*roomy, 0);
  gated.reference_rows = dense_rows;
  const Heard alone = RunAll(roomy.get(), {gated}).front();

  const std::unique_ptr<Engine> tight = MakeSmallStepMailroom(&clock, 1);
  std::vector<Request> requests(6, gated);
  for (size_t i = 0; i < 6; ++i) {
    requests.insert(requests.begin(), MakeRequest(MailTokens(i, 30), 120));
  }
  const std::vector<Heard> heard = RunAll(tight.get(), requests);
  EXPECT_GT(tight->Snapshot().preemptions, 0u);
  for (size_t i = 6; i < 12; ++i) {
    ASSERT_THAT(heard[i].scores, SizeIs(1));
    EXPECT_EQ(heard[i].scores[0].divergences, alone.scores[0].divergences);
  }
}

}  // namespace
}  // namespace headcount
