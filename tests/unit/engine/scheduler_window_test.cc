// Sequences of models with sliding windows: what they hold, what they give
// back, and that they never wait for what they gave.
#include <algorithm>
#include <vector>

#include "engine/scheduler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "heads/kv_geometry.h"
#include "tests/unit/engine/scheduler_driver.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

// Blocks of 1024 bytes, steps of 64 tokens, a window of 100: at most 12 blocks
// for a prompt (163 tokens across 12 blocks at worst) and 8 to decode (100
// across 8).
constexpr int64_t kBlock = 1024;
constexpr int64_t kPromptBlocks = 12;
constexpr int64_t kDecodeBlocks = 8;

DriverOptions WindowedPoolOf(int64_t blocks) {
  DriverOptions options = PoolOf(blocks);
  options.models[0].windows = {100};
  options.models[0].max_context = 20000;
  return options;
}

TEST(SchedulerWindowTest, ALongSequenceHoldsItsWindowOnly) {
  SchedulerDriver driver(WindowedPoolOf(16));
  const RequestId id = driver.Submit(6000, 4000);
  driver.Step();
  int64_t most_in_prompt = 0;
  int64_t most_decoding = 0;
  while (driver.Live(id)) {
    driver.Step();
    const int64_t used = driver.pool().bytes().used;
    // The step that draws the first token gives back what the prompt needed.
    int64_t& most = driver.Generated(id) == 0 ? most_in_prompt : most_decoding;
    most = std::max(most, used);
  }
  EXPECT_EQ(most_in_prompt, kPromptBlocks * kBlock);
  EXPECT_LE(most_decoding, kDecodeBlocks * kBlock);
  EXPECT_GE(most_decoding, (kDecodeBlocks - 1) * kBlock);
  EXPECT_EQ(driver.Generated(id), 4000);
  EXPECT_EQ(driver.pool().bytes().used, 0);
}

TEST(SchedulerWindowTest, FullGroupsOfTheSameModelKeepEverything) {
  DriverOptions options = PoolOf(80);
  options.models[0].block_bytes = {1024, 512};
  options.models[0].windows = {0, 100};
  SchedulerDriver driver(options);
  const RequestId id = driver.Submit(700, 300);
  while (driver.Generated(id) < 299) driver.Step();
  // 998 tokens are computed.
  const int64_t in_window = driver.pool().bytes().used - 63 * 1024;
  EXPECT_LE(in_window, kDecodeBlocks * 512);
  EXPECT_GE(in_window, (kDecodeBlocks - 1) * 512);
  // The mean of 998 tokens in blocks of 1024 bytes, and those since the start
  // of the first block that is held, 896, in blocks of 512.
  EXPECT_EQ(driver.scheduler().Stats().models[0].kv_tokens,
            (998 * 1024 + (998 - 896) * 512) / 1536);
  driver.RunDry();
}

// Without windows, one of these prompts fills the pool.
TEST(SchedulerWindowTest, AdmissionCountsWhatASequenceCanHoldAtOnce) {
  SchedulerDriver driver(WindowedPoolOf(4 * kPromptBlocks));
  const RequestId first = driver.Submit(4000, 400);
  for (int i = 0; i < 3; ++i) driver.Submit(4000, 400);
  driver.Step();
  // One after the other computes its prompt, while those before it decode.
  while (driver.scheduler().Stats().models[0].running < 4) {
    ASSERT_TRUE(driver.Live(first));
    driver.Step();
  }
  EXPECT_EQ(driver.scheduler().Stats().preemptions, 0u);
  driver.RunDry();
}

// What falls out of the window becomes room for what comes, and nobody else
// gets it: not even the model whose sequences want more than there is.
TEST(SchedulerWindowTest, APromptNeverWaitsForBlocksOnceItIsIn) {
  DriverOptions options = WindowedPoolOf(kPromptBlocks + 4);
  options.models.push_back(DriverModel{});  // full, on the same pool
  SchedulerDriver driver(options);
  const RequestId windowed = driver.Submit(3000, 1, 0);
  driver.Step();
  for (int i = 0; i < 3; ++i) driver.Submit(16, 150, 1);
  int32_t computed = 64;
  while (driver.Live(windowed)) {
    const StepPlan plan = driver.Step();
    if (plan.model == 1) continue;
    EXPECT_EQ(plan.prefill_tokens, std::min(64, 3000 - computed));
    computed += plan.prefill_tokens;
  }
  EXPECT_EQ(computed, 3000);
  driver.RunDry();
}

// The driver checks every token that is computed again.
TEST(SchedulerWindowTest, PreemptedSequencesAreComputedAgain) {
  SchedulerDriver driver(WindowedPoolOf(20));
  std::vector<RequestId> ids;
  for (int i = 0; i < 6; ++i) ids.push_back(driver.Submit(40 + i, 600));
  driver.RunDry();
  int preemptions = 0;
  for (const RequestId id : ids) {
    EXPECT_EQ(driver.Generated(id), 600);
    EXPECT_THAT(driver.UsedLogits(id), SizeIs(600));
    preemptions += driver.Preemptions(id);
  }
  EXPECT_GT(preemptions, 0);
}

TEST(SchedulerWindowTest, AReservationIsWhatASequenceCanHoldAtOnce) {
  SchedulerDriver driver(WindowedPoolOf(20));
  for (int i = 0; i < 8; ++i) driver.Submit(60, 900);
  driver.Step();
  bool reserved = false;
  while (!driver.scheduler().idle()) {
    driver.Step();
    for (RequestId id = 1; id <= 8; ++id) {
      reserved =
          reserved || (driver.Runs(id) &&
                       driver.Preemptions(id) == Scheduler::kMaxPreemptions);
    }
  }
  EXPECT_TRUE(reserved) << "the pool was too large to tell";
  EXPECT_EQ(driver.pool().bytes().used, 0);
}

TEST(SchedulerWindowTest, RefusesWhatAnEmptyPoolCannotHoldAtOnce) {
  SchedulerDriver enough(WindowedPoolOf(kPromptBlocks));
  EXPECT_TRUE(enough.CheckFits(RequestOf(15000, 5000)).ok());
  enough.Submit(1000, 10);
  enough.RunDry();

  SchedulerDriver small(WindowedPoolOf(kPromptBlocks - 1));
  EXPECT_EQ(small.scheduler().limits(0).pool_tokens(), 11 * 16);
  EXPECT_TRUE(small.CheckFits(RequestOf(11 * 16, 1)).ok());
  const absl::Status status = small.CheckFits(RequestOf(5000, 9));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("need 12 KV blocks"));
  EXPECT_THAT(status.message(), HasSubstr("has 11 available (176 tokens)"));

  // Beside a full group, that one decides.
  DriverOptions options = PoolOf(20);
  options.models[0].block_bytes = {1024, 1024};
  options.models[0].windows = {0, 20};  // 7 blocks at once
  SchedulerDriver both(options);
  EXPECT_EQ(both.scheduler().limits(0).pool_tokens(), 13 * 16);
  both.Submit(13 * 16, 1);
  both.RunDry();
  EXPECT_THAT(std::string(both.CheckFits(RequestOf(13 * 16 + 1, 1)).message()),
              HasSubstr("need 14 KV blocks"));
}

// Seven others make it use two slabs of its window's group where one would do.
// They end, and no slab is left for the other group: it hung, for ever.
TEST(SchedulerWindowTest, WhoIsInItsOwnWayIsGathered) {
  DriverOptions options = PoolOf(7);
  options.scheduler.step_tokens = 16;
  options.models[0].block_bytes = {512, 128};
  options.models[0].windows = {0, 17};
  SchedulerDriver driver(options);
  const RequestId alone = driver.Submit(10, 183);
  EXPECT_FALSE(driver.CheckFits(RequestOf(10, 184)).ok()) << "to the last slab";
  std::vector<RequestId> others;
  for (int i = 0; i < 7; ++i) others.push_back(driver.Submit(10, 100));
  for (int i = 0; i < 8; ++i) driver.Step();
  for (const RequestId id : others) {
    EXPECT_TRUE(driver.Runs(id));
    driver.Cancel(id);
  }
  driver.RunDry();
  EXPECT_EQ(driver.Generated(alone), 183);
  EXPECT_EQ(driver.Preemptions(alone), 0);
}

}  // namespace
}  // namespace headcount
