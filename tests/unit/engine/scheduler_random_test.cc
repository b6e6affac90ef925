// Random traffic. SchedulerDriver checks the invariants after every step; at
// the end everything has ended once and the pool is empty.
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/engine/scheduler_driver.h"

namespace headcount {
namespace {

constexpr int kSteps = 600;

class Traffic {
 public:
  explicit Traffic(uint64_t seed) : random_(seed), driver_(Options()) {}

  void Run() {
    for (int step = 0; step < kSteps; ++step) {
      if (Chance(0.35)) SubmitOne();
      if (Chance(0.05)) {
        for (int i = Pick(1, 12); i > 0; --i) SubmitOne();
      }
      while (!ids_.empty() && Chance(0.08)) {
        driver_.Cancel(ids_[static_cast<size_t>(
            Pick(0, static_cast<int>(ids_.size()) - 1))]);
      }
      driver_.now += absl::Milliseconds(Pick(0, 20));
      Log(driver_.Step());
      if (::testing::Test::HasFailure()) return;
    }
    driver_.RunDry();
  }

  uint64_t preemptions() { return driver_.scheduler().Stats().preemptions; }
  const std::vector<int64_t>& log() const { return log_; }  // of all plans

 private:
  int Pick(int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random_);
  }
  bool Chance(double p) { return std::bernoulli_distribution(p)(random_); }

  void Log(const StepPlan& plan) {
    log_.push_back(plan.model);
    for (const StepPart& part : plan.parts) {
      log_.push_back(part.num_tokens);
      log_.push_back(part.logits_rows);
    }
    for (const EndedRequest& ended : plan.ended) {
      log_.push_back(static_cast<int64_t>(ended.id));
    }
  }

  DriverOptions Options() {
    DriverOptions options;
    options.slabs = Pick(6, 12);  // one for each group, at least
    options.scheduler.step_tokens = Pick(4, 64);
    options.scheduler.watermark = Chance(0.5) ? 0.1 : 0;
    // Block sizes unlike each other, one of them wasteful of a slab; full
    // groups, windows, both in one model, and no attention.
    const std::vector<std::vector<int64_t>> sizes = {
        {1024}, {768}, {1500}, {}, {1024, 768}};
    const std::vector<std::vector<int32_t>> windows = {
        {0}, {Pick(1, 80)}, {0}, {}, {0, Pick(1, 80)}};
    options.models.clear();
    for (int i = Pick(1, 5); i > 0; --i) {
      options.models.push_back(
          {.block_bytes = sizes[static_cast<size_t>(i - 1)],
           .windows = windows[static_cast<size_t>(i - 1)],
           .max_context = Pick(60, 400),
           .max_concurrent = Chance(0.3) ? Pick(1, 6) : 0,
           .max_logits_rows = Pick(1, 40)});
    }
    num_models_ = static_cast<int>(options.models.size());
    return options;
  }

  void SubmitOne() {
    Request request;
    request.model = Pick(0, num_models_ - 1);
    const int prompt = Chance(0.2) ? Pick(60, 200) : Pick(1, 60);
    request.prompt.resize(static_cast<size_t>(prompt));
    request.sampling.max_tokens = Chance(0.1) ? 0 : Pick(1, 120);
    if (Chance(0.2)) {
      request.sampling.max_tokens = 0;
      for (int i = Pick(1, 5); i > 0; --i) {
        request.continuations.emplace_back(static_cast<size_t>(Pick(1, 40)));
      }
    }
    if (Chance(0.3)) {
      request.deadline = driver_.now + absl::Milliseconds(Pick(0, 800));
    }
    if (!driver_.CheckFits(request).ok()) return;
    ids_.push_back(driver_.Submit(request));
    if (Chance(0.4)) driver_.StopAfter(ids_.back(), Pick(1, 60));
  }

  std::mt19937_64 random_;
  int num_models_ = 0;
  SchedulerDriver driver_;
  std::vector<RequestId> ids_;
  std::vector<int64_t> log_;
};

TEST(SchedulerRandomTest, InvariantsHoldUnderRandomTraffic) {
  uint64_t preemptions = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    Traffic traffic(seed);
    traffic.Run();
    preemptions += traffic.preemptions();
    if (HasFailure()) return;
  }
  EXPECT_GT(preemptions, 1000u) << "the traffic was too light to tell";
}

TEST(SchedulerRandomTest, TheSameCallsGiveTheSamePlans) {
  Traffic first(7);
  Traffic second(7);
  first.Run();
  second.Run();
  EXPECT_EQ(first.log(), second.log());
}

}  // namespace
}  // namespace headcount
