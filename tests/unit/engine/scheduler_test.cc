#include "engine/scheduler.h"

#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine/scheduler_driver.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<RequestId> Ids(const StepPlan& plan) {
  std::vector<RequestId> ids;
  for (const StepPart& part : plan.parts) ids.push_back(part.sequence->id);
  return ids;
}

std::vector<int32_t> Tokens(const StepPlan& plan) {
  std::vector<int32_t> tokens;
  for (const StepPart& part : plan.parts) tokens.push_back(part.num_tokens);
  return tokens;
}

TEST(SchedulerTest, AnEmptySchedulerHasNothingToDo) {
  SchedulerDriver driver(PoolOf(4));
  const StepPlan plan = driver.Step();
  EXPECT_THAT(plan.parts, IsEmpty());
  EXPECT_THAT(plan.ended, IsEmpty());
  EXPECT_TRUE(driver.scheduler().idle());
}

TEST(SchedulerTest, ARequestRunsToItsLength) {
  SchedulerDriver driver(PoolOf(4));
  const RequestId id = driver.Submit(10, 5);
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(10));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Tokens(driver.Step()), ElementsAre(1));
  }
  EXPECT_TRUE(driver.Live(id));
  driver.Step();
  EXPECT_EQ(driver.Ended(id), EndCause::kLength);
  EXPECT_EQ(driver.Generated(id), 5);
  EXPECT_THAT(driver.UsedLogits(id), ElementsAre(9, 10, 11, 12, 13));
  EXPECT_EQ(driver.pool().bytes().used, 0);
}

TEST(SchedulerTest, WaitingRequestsAreAdmittedInOrderOfArrival) {
  DriverOptions options = PoolOf(16);
  options.models[0].max_concurrent = 2;
  SchedulerDriver driver(options);
  const RequestId a = driver.Submit(4, 8);
  const RequestId b = driver.Submit(4, 2);
  const RequestId c = driver.Submit(4, 2);
  const RequestId d = driver.Submit(4, 2);
  EXPECT_THAT(Ids(driver.Step()), ElementsAre(a, b));
  driver.Step();
  EXPECT_FALSE(driver.Live(b));
  EXPECT_TRUE(driver.Step().parts.size() == 2 && driver.Runs(c));
  EXPECT_FALSE(driver.Runs(d));
  driver.RunDry();
}

TEST(SchedulerTest, AdmissionAsksForBlocksOfTheWholePrompt) {
  DriverOptions options = PoolOf(6);
  options.scheduler.step_tokens = 16;
  SchedulerDriver driver(options);
  const RequestId a = driver.Submit(64, 1);  // 4 blocks
  const RequestId b = driver.Submit(40, 1);  // 3 blocks
  const RequestId c = driver.Submit(1, 1);   // would fit, but is not first
  for (int chunk = 0; chunk < 4; ++chunk) {
    driver.Step();
    EXPECT_FALSE(driver.Runs(b));
    EXPECT_FALSE(driver.Runs(c));
  }
  EXPECT_FALSE(driver.Live(a));
  driver.Step();
  EXPECT_TRUE(driver.Runs(b));
  driver.RunDry();
}

TEST(SchedulerTest, AdmissionLeavesAWatermarkOfThePoolFree) {
  DriverOptions options = PoolOf(10);
  options.scheduler.watermark = 0.2;
  options.scheduler.step_tokens = 1000;
  SchedulerDriver driver(options);
  const RequestId a = driver.Submit(5 * 16, 3);
  const RequestId b = driver.Submit(3 * 16, 3);
  const RequestId c = driver.Submit(1, 3);
  driver.Step();
  EXPECT_TRUE(driver.Runs(a));
  EXPECT_TRUE(driver.Runs(b));
  EXPECT_FALSE(driver.Runs(c)) << "2 of 10 blocks stay free";
  driver.RunDry();
  EXPECT_EQ(driver.scheduler().Stats().preemptions, 0u);
}

TEST(SchedulerTest, TheWatermarkKeepsNobodyOutOfAnEmptyPool) {
  DriverOptions options = PoolOf(10);
  options.scheduler.watermark = 0.2;
  SchedulerDriver driver(options);
  const RequestId id = driver.Submit(10 * 16, 1);
  driver.Step();
  EXPECT_TRUE(driver.Runs(id));
  driver.RunDry();
}

TEST(SchedulerTest, ALongPromptIsComputedInChunksOfTheBudget) {
  DriverOptions options = PoolOf(16);
  options.scheduler.step_tokens = 30;
  SchedulerDriver driver(options);
  const RequestId id = driver.Submit(70, 1);
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(30));
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(30));
  EXPECT_THAT(driver.UsedLogits(id), IsEmpty());
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(10));
  EXPECT_THAT(driver.UsedLogits(id), ElementsAre(69));
}

TEST(SchedulerTest, ALongPromptLeavesHalfOfAStepToOthers) {
  DriverOptions options = PoolOf(32);
  options.scheduler.step_tokens = 32;
  SchedulerDriver driver(options);
  const RequestId archive = driver.Submit(256, 1);
  // Alone it takes all.
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(32));
  const RequestId note = driver.Submit(10, 2);
  const RequestId letter = driver.Submit(20, 1);
  // 6 tokens are left when `note` has its 10.
  const StepPlan plan = driver.Step();
  EXPECT_THAT(Ids(plan), ElementsAre(archive, note, letter));
  EXPECT_THAT(Tokens(plan), ElementsAre(16, 10, 6));
  EXPECT_EQ(plan.prefill_tokens, 32);
  // One decodes; the rest of `letter` leaves 2 of the other half.
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(1, 17, 14));
  EXPECT_FALSE(driver.Live(letter));
  EXPECT_TRUE(driver.Live(archive));
  // 191 tokens are left: long until no more than four steps are.
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(32));
  driver.RunDry();
}

TEST(SchedulerTest, APromptOfAFewStepsIsComputedBeforeYoungerOnes) {
  DriverOptions options = PoolOf(32);
  options.scheduler.step_tokens = 32;
  SchedulerDriver driver(options);
  driver.Submit(128, 1);
  driver.Submit(10, 1);
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(32));
  driver.RunDry();
}

TEST(SchedulerTest, DecodeGoesBeforePromptChunks) {
  DriverOptions options = PoolOf(64);
  options.scheduler.step_tokens = 8;
  SchedulerDriver driver(options);
  const RequestId a = driver.Submit(4, 50);
  const RequestId b = driver.Submit(4, 50);
  driver.Step();
  driver.Submit(100, 1);
  for (int i = 0; i < 10; ++i) {
    const StepPlan plan = driver.Step();
    EXPECT_THAT(Tokens(plan), ElementsAre(1, 1, 6));
    EXPECT_EQ(plan.decode_tokens, 2);
    EXPECT_EQ(plan.prefill_tokens, 6);
  }
  EXPECT_EQ(driver.Generated(a), 11);
  EXPECT_EQ(driver.Generated(b), 11);
}

TEST(SchedulerTest, NoMoreRunThanAStepHasTokensFor) {
  DriverOptions options = PoolOf(64);
  options.scheduler.step_tokens = 4;
  SchedulerDriver driver(options);
  for (int i = 0; i < 10; ++i) driver.Submit(1, 20);
  driver.Step();
  EXPECT_THAT(driver.Step().parts, SizeIs(4));
  driver.RunDry();
}

TEST(SchedulerTest, ScoredPositionsGiveLogitsAndLimitTheChunk) {
  DriverOptions options = PoolOf(16);
  options.models[0].max_logits_rows = 10;
  SchedulerDriver driver(options);
  // The logits of position 20 score the token after it; the last is never
  // computed.
  const RequestId id = driver.Submit(ScoreOf(21, {31}));
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(30));
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(10));
  driver.RunDry();
  std::vector<int32_t> expected(31);
  std::iota(expected.begin(), expected.end(), 20);
  EXPECT_EQ(driver.UsedLogits(id), expected);
  EXPECT_EQ(driver.Generated(id), 0);
}

TEST(SchedulerTest, ContinuationsFollowOnePromptThatIsComputedOnce) {
  SchedulerDriver driver(PoolOf(4));
  const RequestId id = driver.Submit(ScoreOf(40, {1, 3, 2, 1, 5}));
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(42));
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(1));
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(4));
  EXPECT_EQ(driver.Ended(id), EndCause::kLength);
  EXPECT_THAT(driver.UsedLogits(id),
              ElementsAre(39, 40, 41, 40, 40, 41, 42, 43));
  EXPECT_EQ(driver.pool().bytes().used, 0);
}

TEST(SchedulerTest, ContinuationsOfOneTokenNeedOnlyThePrompt) {
  SchedulerDriver driver(PoolOf(4));
  const RequestId id = driver.Submit(ScoreOf(64, {1, 1, 1}));
  EXPECT_THAT(Tokens(driver.Step()), ElementsAre(64));
  EXPECT_EQ(driver.Ended(id), EndCause::kLength);
  EXPECT_THAT(driver.UsedLogits(id), ElementsAre(63));
}

TEST(SchedulerTest, RefusesAContinuationOverTheContextOrThePool) {
  DriverOptions options = PoolOf(4);
  options.models[0].max_context = 100;
  const SchedulerDriver driver(options);
  EXPECT_TRUE(driver.CheckFits(ScoreOf(40, {25, 2})).ok());
  absl::Status status = driver.CheckFits(ScoreOf(40, {2, 26}));
  EXPECT_THAT(status.message(), HasSubstr("prompt: a prompt of 40 tokens"));
  EXPECT_THAT(status.message(), HasSubstr("need 5 KV blocks"));
  status = driver.CheckFits(ScoreOf(40, {61}));
  EXPECT_THAT(status.message(), HasSubstr("at most 39 fit the context"));
}

TEST(SchedulerTest, RefusesAPromptOverTheContext) {
  DriverOptions options = PoolOf(100);
  options.models[0].max_context = 32;
  SchedulerDriver driver(options);
  EXPECT_TRUE(driver.CheckFits(RequestOf(31, 500)).ok());
  EXPECT_TRUE(driver.CheckFits(RequestOf(32, 0)).ok());
  const absl::Status status = driver.CheckFits(RequestOf(32, 1));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("prompt: 32 tokens"));
  EXPECT_THAT(status.message(), HasSubstr("at most 31"));
  const RequestId id = driver.Submit(31, 500);
  driver.RunDry();
  EXPECT_EQ(driver.Ended(id), EndCause::kLength);
  EXPECT_EQ(driver.Generated(id), 1);
}

TEST(SchedulerTest, RefusesWhatAnEmptyPoolCannotHold) {
  SchedulerDriver driver(PoolOf(4));
  EXPECT_EQ(driver.scheduler().limits(0).pool_tokens(), 64);
  const absl::Status status = driver.CheckFits(RequestOf(30, 36));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("need 5 KV blocks"));
  EXPECT_THAT(status.message(), HasSubstr("has 4 available (64 tokens)"));
  // The last token generated is never computed: this one fits to the token.
  driver.Submit(30, 35);
  driver.RunDry();
}

TEST(SchedulerTest, AllGroupsOfASequenceMustFitTogether) {
  DriverOptions options{.slabs = 3, .slab_bytes = 4096};
  options.models[0].block_bytes = {1024, 2048};  // 4 and 2 to a slab
  SchedulerDriver driver(options);
  EXPECT_EQ(driver.scheduler().limits(0).pool_tokens(), 4 * 16);
  driver.Submit(4 * 16, 1);
  driver.RunDry();
}

TEST(SchedulerTest, AModelWithoutAttentionNeedsNoBlocks) {
  DriverOptions options = PoolOf(1);
  options.models[0].block_bytes.clear();
  SchedulerDriver driver(options);
  for (int i = 0; i < 5; ++i) driver.Submit(300, 20);
  driver.RunDry();
}

TEST(SchedulerTest, ModelsTakeTurns) {
  DriverOptions options = PoolOf(64);
  options.models = {DriverModel{}, DriverModel{}, DriverModel{}};
  SchedulerDriver driver(options);
  driver.Submit(4, 20, 0);
  driver.Submit(4, 20, 2);
  std::vector<int> turns;
  for (int i = 0; i < 6; ++i) turns.push_back(driver.Step().model);
  EXPECT_THAT(turns, ElementsAre(0, 2, 0, 2, 0, 2));
}

TEST(SchedulerTest, NobodyIsAdmittedBeforeAnOlderOneThatWaitsForBlocks) {
  DriverOptions options = PoolOf(8);
  options.models = {DriverModel{}, DriverModel{}};
  SchedulerDriver driver(options);
  const RequestId a = driver.Submit(3 * 16, 4, 0);
  driver.Step();
  const RequestId big = driver.Submit(7 * 16, 2, 0);
  driver.Step();
  EXPECT_FALSE(driver.Runs(big));
  const RequestId small = driver.Submit(16, 2, 1);
  while (driver.Live(a)) {
    EXPECT_FALSE(driver.Runs(small));
    driver.Step();
  }
  driver.Step();
  EXPECT_TRUE(driver.Runs(big));
  driver.RunDry();
}

TEST(SchedulerTest, ARequestMayEndInTheStepThatBringsIt) {
  SchedulerDriver driver(PoolOf(4));
  const RequestId cancelled = driver.Submit(16, 4);
  driver.Cancel(cancelled);
  Request late = RequestOf(16, 4);
  late.deadline = driver.now;
  const RequestId expired = driver.Submit(late);
  EXPECT_THAT(driver.Step().ended, SizeIs(2));
  EXPECT_EQ(driver.Ended(cancelled), EndCause::kCancelled);
  EXPECT_EQ(driver.Ended(expired), EndCause::kDeadline);
  EXPECT_TRUE(driver.scheduler().idle());
}

TEST(SchedulerTest, BlocksOfWhatEndsAreFreeForTheNextPlan) {
  SchedulerDriver driver(PoolOf(4));
  const RequestId a = driver.Submit(64, 1);
  const RequestId b = driver.Submit(64, 1);
  driver.Step();
  EXPECT_FALSE(driver.Live(a));
  driver.Step();
  EXPECT_FALSE(driver.Live(b));
}

TEST(SchedulerTest, StatsCountWhatRunsAndWaits) {
  DriverOptions options = PoolOf(8);
  options.models[0].max_concurrent = 1;
  SchedulerDriver driver(options);
  driver.Submit(20, 4);
  driver.Submit(30, 4);
  driver.Submit(5, 4);
  driver.Step();
  const SchedulerStats stats = driver.scheduler().Stats();
  ASSERT_THAT(stats.models, SizeIs(1));
  EXPECT_EQ(stats.models[0].running, 1);
  EXPECT_EQ(stats.models[0].waiting, 2);
  EXPECT_EQ(stats.models[0].kv_tokens, 20);
  EXPECT_EQ(stats.waiting_tokens, 35);
}

}  // namespace
}  // namespace headcount
