// Statistics of heads through the engine: each computed token counts once,
// whatever the scheduler does with its sequence.
#include <cmath>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/head_statistics.h"
#include "model/model.h"
#include "tests/unit/engine/engine_fixture.h"

namespace headcount {
namespace {

std::shared_ptr<HeadStatistics> MakeStatistics(const Engine& engine) {
  return std::make_shared<HeadStatistics>(engine.model(0)->heads().layout(),
                                          /*gram=*/false);
}

Request Counted(size_t start, size_t count,
                const std::shared_ptr<HeadStatistics>& statistics) {
  Request request = MakeRequest(MailTokens(start, count), 0);
  request.statistics = statistics;
  return request;
}

void ExpectSame(const HeadStatistics& found, const HeadStatistics& expected) {
  for (size_t l = 0; l < expected.layers().size(); ++l) {
    const LayerStatistics& a = found.layers()[l];
    const LayerStatistics& b = expected.layers()[l];
    EXPECT_EQ(a.tokens, b.tokens);
    for (size_t i = 0; i < b.sum.size(); ++i) {
      ASSERT_NEAR(a.sum[i], b.sum[i], 1e-3) << l << ", " << i;
    }
    for (size_t i = 0; i < b.output_norm.size(); ++i) {
      ASSERT_NEAR(a.output_norm[i], b.output_norm[i], 1e-3) << l << ", " << i;
    }
  }
}

TEST(EngineStatisticsTest, TokensThatTheCacheHasAreComputedAllTheSame) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeSmallStepMailroom(&clock, 8);
  RunAll(engine.get(), {MakeRequest(MailTokens(0, 64), 1)});
  const auto statistics = MakeStatistics(*engine);
  const Heard heard =
      RunAll(engine.get(), {Counted(0, 64, statistics)}).front();
  EXPECT_EQ(heard.ending().cached_tokens, 0);
  EXPECT_EQ(statistics->layers()[0].tokens, 64);
  EXPECT_EQ(statistics->layers()[5].tokens, 64);
}

TEST(EngineStatisticsTest, PreemptionCountsNoTokenTwice) {
  const SystemClock clock;
  const std::unique_ptr<Engine> roomy = MakeSmallStepMailroom(&clock, 8);
  const auto expected = MakeStatistics(*roomy);
  std::vector<Request> counted;
  for (size_t i = 0; i < 6; ++i) {
    counted.push_back(Counted(20 * i, 60, expected));
    counted.back().statistics_skip = 3;
  }
  RunAll(roomy.get(), counted);
  EXPECT_EQ(expected->layers()[0].tokens, 6 * 57);

  const std::unique_ptr<Engine> tight = MakeSmallStepMailroom(&clock, 1);
  const auto found = MakeStatistics(*tight);
  std::vector<Request> requests;
  for (size_t i = 0; i < 6; ++i) {
    requests.push_back(MakeRequest(MailTokens(i, 30), 120));
  }
  for (Request& request : counted) {
    request.statistics = found;
    requests.push_back(request);
  }
  RunAll(tight.get(), requests);
  EXPECT_GT(tight->Snapshot().preemptions, 0u);
  ExpectSame(*found, *expected);
}

}  // namespace
}  // namespace headcount
