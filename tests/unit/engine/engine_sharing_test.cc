// Answers do not depend on the company: whatever is preempted, found in the
// prefix cache, or computed in chunks, each is bit-equal to its solo run.
#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine/engine_fixture.h"

namespace headcount {
namespace {

// Sanitizers look at the code, not at the bits, and take much longer.
#if defined(__SANITIZE_ADDRESS__)
constexpr int kAnswers = 50;
#else
constexpr int kAnswers = 500;
#endif

class Schedule {
 public:
  explicit Schedule(uint64_t seed) : random_(seed) {}

  int Pick(int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random_);
  }
  bool Chance(double p) { return std::bernoulli_distribution(p)(random_); }

  // Begins like others; greedy, drawn, or scored; of mailroom or of a mask of
  // it.
  Request MakeOne() {
    const auto common = static_cast<size_t>(Pick(0, 10) * 16 + Pick(0, 3));
    std::vector<int32_t> prompt = MailTokens(0, common);
    const std::vector<int32_t> own = MailTokens(
        static_cast<size_t>(Pick(1, 200)), static_cast<size_t>(Pick(1, 60)));
    prompt.insert(prompt.end(), own.begin(), own.end());
    Request request = MakeRequest(prompt, Pick(1, 50));
    request.sampling.ignore_eos = true;
    request.sampling.logprobs = true;
    if (Chance(0.4)) request.sampling.temperature = 0.9f;
    request.sampling.seed = static_cast<uint64_t>(Pick(0, 1000));
    if (Chance(0.15)) {
      request = MakeScoreRequest(
          prompt, {MailTokens(7, 20), MailTokens(9, 1), MailTokens(30, 33)});
    }
    request.model = Pick(0, 1);
    request.tenant = Chance(0.2) ? "other" : "";
    request.priority = Pick(-1, 1);
    return request;
  }

 private:
  std::mt19937_64 random_;
};

TEST(EngineSharingTest, AnswersUnderPressureAreThoseOfSoloRuns) {
#if defined(HEADCOUNT_THREAD_SANITIZER)
  GTEST_SKIP()
      << "one thread steps; EngineOutputTest does as much in less time";
#endif
  const std::vector<ModelSpec> models = {
      {.path = MailroomPath()},
      {.path = MailroomPath(), .mask = {{{1, {0, 1}}, {4, {2, 3, 4, 5}}}}}};
  const SystemClock clock;
  const std::unique_ptr<Engine> solo = MakeEngine(
      models, {.kv_pool_bytes = 16 * kSlab, .prefix_cache = false}, &clock);
  uint64_t preemptions = 0;
  int64_t cached_tokens = 0;
  int compared = 0;
  for (uint64_t seed = 0; compared < kAnswers; ++seed) {
    SCOPED_TRACE(seed);
    Schedule schedule(seed);
    const std::unique_ptr<Engine> engine =
        MakeEngine(models,
                   {.kv_pool_bytes = schedule.Pick(2, 3) * kSlab,
                    .step_tokens = schedule.Pick(5, 120),
                    .watermark = schedule.Chance(0.5) ? 0.01 : 0},
                   &clock);
    std::vector<Request> requests;
    std::vector<std::shared_ptr<Recorder>> heard;
    std::vector<RequestId> ids;
    while (requests.size() < 25 || engine->StepOnce()) {
      if (requests.size() < 25 && schedule.Chance(0.5)) {
        requests.push_back(schedule.MakeOne());
        heard.push_back(std::make_shared<Recorder>());
        ids.push_back(engine->Submit(requests.back(), heard.back()).value());
      }
      if (requests.size() < 25) engine->StepOnce();
      if (!ids.empty() && schedule.Chance(0.02)) {
        engine->Cancel(
            ids[static_cast<size_t>(schedule.Pick(0, int(ids.size()) - 1))]);
      }
    }
    preemptions += engine->Snapshot().preemptions;
    EXPECT_EQ(engine->Snapshot().pool.used, 0);
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_TRUE(heard[i]->ended());
      const Heard answer = heard[i]->heard();
      if (answer.ending().cause == EndCause::kCancelled) continue;
      cached_tokens += answer.ending().cached_tokens;
      const Heard alone = RunAll(solo.get(), {requests[i]}).front();
      ASSERT_TRUE(SameAnswer(answer, alone)) << "request " << i;
      ++compared;
    }
  }
  EXPECT_GT(preemptions, uint64_t{kAnswers / 25})
      << "too little pressure to tell";
  EXPECT_GT(cached_tokens, 20 * kAnswers) << "too few hits to tell";
}

}  // namespace
}  // namespace headcount
