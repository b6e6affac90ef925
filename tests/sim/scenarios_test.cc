// What other servers were reported to do badly when KV memory is short, at the
// size of a real one. The issue that each is about is named.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/engine/scheduler_driver.h"

namespace headcount {
namespace {

constexpr int32_t kLong = 100000;
constexpr int32_t kStepTokens = 2048;

// Blocks of 16 tokens, 64 of them in a slab; tokens as a multiple of kLong.
DriverOptions ServerOf(double longs) {
  DriverOptions options;
  options.slab_bytes = 64 * 1024;
  options.slabs = static_cast<int64_t>(longs * kLong / 16 / 64);
  options.scheduler = {.step_tokens = kStepTokens, .watermark = 0.01};
  options.models[0].max_context = 1 << 20;
  options.models[0].max_logits_rows = 256;
  return options;
}

// Four prompts of 100,000 tokens on a pool for three and a half: vLLM let in
// each on its first chunk and fell from 100 tokens a second to 1.5 (37307).
// One that never fits was retried for ever (vLLM 52530).
TEST(SchedulerScenarios, LongPromptsDoNotThrash) {
  SchedulerDriver driver(ServerOf(3.5));
  EXPECT_FALSE(driver.CheckFits(RequestOf(4 * kLong, 100)).ok())
      << "refused at once";
  std::vector<RequestId> ids;
  for (int i = 0; i < 4; ++i) ids.push_back(driver.Submit(kLong, 200));
  for (int i = 0; i < 50; ++i) ids.push_back(driver.Submit(100, 100));
  int64_t steps = 0;
  int64_t tokens = 0;
  while (!driver.scheduler().idle() || steps == 0) {
    const StepPlan plan = driver.Step();
    const int64_t done = plan.prefill_tokens + plan.decode_tokens;
    const bool prompts_left = tokens + done < 4 * kLong;
    if (steps < 140) {
      EXPECT_EQ(done, kStepTokens) << "step " << steps << " is not full";
    }
    EXPECT_TRUE(prompts_left || done > 0 || driver.scheduler().idle());
    tokens += done;
    ASSERT_LT(++steps, 5000);
  }
  for (const RequestId id : ids) {
    EXPECT_EQ(driver.Ended(id), EndCause::kLength) << id;
  }
  EXPECT_LE(driver.scheduler().Stats().preemptions, 3u);
  const int64_t needed = 4 * (kLong + 200) + 50 * 200;
  EXPECT_LT(tokens, needed * 5 / 4) << "computed again";
}

// A prompt is let in on all of its blocks or not at all.
TEST(SchedulerScenarios, AdmissionLooksAtTheWholePrompt) {
  SchedulerDriver driver(ServerOf(1.5));
  const RequestId first = driver.Submit(kLong, 10);
  const RequestId second = driver.Submit(kLong, 10);
  driver.Step();
  EXPECT_TRUE(driver.Runs(first));
  EXPECT_FALSE(driver.Runs(second)) << "its first chunk would fit";
  driver.RunDry();
  EXPECT_EQ(driver.Preemptions(first) + driver.Preemptions(second), 0);
}

// Sequences that together outgrow the pool: each step somebody comes further
// and all end (vllm-ascend 16315: a loop of preemptions, 0 tokens a second).
TEST(SchedulerScenarios, GrowthBeyondThePoolIsNoLivelock) {
  DriverOptions options = PoolOf(64);
  options.scheduler.prefix_cache = false;
  options.models[0].max_logits_rows = 64;
  SchedulerDriver driver(options);
  std::vector<RequestId> ids;
  for (int i = 0; i < 60; ++i) ids.push_back(driver.Submit(16, 900));
  driver.RunDry();
  for (const RequestId id : ids) {
    EXPECT_EQ(driver.Ended(id), EndCause::kLength);
    EXPECT_LE(driver.Preemptions(id), 3);
  }
}

// An old request for most of the pool, and short ones that never cease, of its
// own model and of another.
TEST(SchedulerScenarios, ALongRequestIsNotStarvedByShortOnes) {
  DriverOptions options = PoolOf(64);
  options.models.push_back(options.models[0]);
  SchedulerDriver driver(options);
  for (int i = 0; i < 20; ++i) driver.Submit(30, 20, i % 2);
  driver.Step();
  const RequestId long_one = driver.Submit(900, 20);
  int steps = 0;
  while (!driver.Runs(long_one)) {
    driver.Submit(30, 20, 0);
    driver.Submit(30, 20, 1);
    driver.Step();
    ASSERT_LT(++steps, 200);
  }
}

struct LongPrompt {
  const char* name;
  std::vector<int64_t> block_bytes;
  std::vector<int32_t> windows;
  bool prefix_cache;
  int32_t most;  // prompt and answer that the pool of 4 MiB can hold
};

// 131,072 tokens on a small pool: what fits is computed, whatever ran before;
// one token more is refused at once, with the numbers.
TEST(SchedulerScenarios, LongContextsAreAdmittedOrRefused) {
  const LongPrompt cases[] = {
      {"full", {1024}, {0}, false, 65536},
      {"full, with what others left in the cache", {1024}, {0}, true, 65536},
      {"window", {1024}, {4096}, true, 131072},
      {"window and a small full group", {256, 1024}, {0, 1024}, true, 131072},
  };
  for (const LongPrompt& its : cases) {
    SCOPED_TRACE(its.name);
    DriverOptions options;
    options.slab_bytes = 64 * 1024;
    options.slabs = 64;
    options.scheduler = {.step_tokens = kStepTokens,
                         .watermark = 0.01,
                         .prefix_cache = its.prefix_cache};
    options.models[0].block_bytes = its.block_bytes;
    options.models[0].windows = its.windows;
    options.models[0].max_context = 131072;
    SchedulerDriver driver(options);
    EXPECT_FALSE(driver.CheckFits(RequestOf(its.most, 2)).ok());
    for (int i = 0; i < 100; ++i) driver.Submit(300, 30);
    const RequestId id = driver.Submit(its.most - 20, 20);
    driver.RunDry();
    EXPECT_EQ(driver.Ended(id), EndCause::kLength);
    EXPECT_EQ(driver.Generated(id), 20);
    EXPECT_EQ(driver.Preemptions(id), 0);
  }
}

}  // namespace
}  // namespace headcount
