// What happens when the pool is exhausted, and endings in every state that this
// brings about.
#include <numeric>
#include <vector>

#include "engine/scheduler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine/scheduler_driver.h"

namespace headcount {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(SchedulerPreemptionTest, ExhaustionPreemptsTheNewest) {
  SchedulerDriver driver(PoolOf(4));
  const RequestId a = driver.Submit(16, 40);
  const RequestId b = driver.Submit(16, 40);
  const RequestId c = driver.Submit(16, 40);
  driver.Step();  // 3 blocks
  driver.Step();  // a takes the fourth; then c makes room for b
  EXPECT_TRUE(driver.Runs(a));
  EXPECT_TRUE(driver.Runs(b));
  EXPECT_FALSE(driver.Runs(c));
  EXPECT_EQ(driver.Preemptions(c), 1);
  driver.RunDry();
  EXPECT_EQ(driver.Preemptions(a), 0);
  for (const RequestId id : {a, b, c}) {
    EXPECT_EQ(driver.Generated(id), 40);
    EXPECT_EQ(driver.Ended(id), EndCause::kLength);
  }
}

TEST(SchedulerPreemptionTest, APreemptedSequenceGoesBackBeforeYoungerOnes) {
  DriverOptions options = PoolOf(4);
  options.models[0].max_concurrent = 3;
  SchedulerDriver driver(options);
  for (int i = 0; i < 3; ++i) driver.Submit(16, 40);
  const RequestId late = driver.Submit(16, 2);
  driver.Step();
  driver.Step();
  ASSERT_EQ(driver.Preemptions(3), 1);
  while (!driver.Runs(3)) {
    ASSERT_FALSE(driver.Runs(late));
    driver.Step();
  }
  driver.RunDry();
}

TEST(SchedulerPreemptionTest, RecomputingUsesNoLogitsTwice) {
  SchedulerDriver driver(PoolOf(4));
  const RequestId a = driver.Submit(16, 40);
  const RequestId b = driver.Submit(16, 40);
  const RequestId c = driver.Submit(16, 40);
  driver.RunDry();
  EXPECT_GT(driver.Preemptions(b) + driver.Preemptions(c), 0);
  std::vector<int32_t> once(40);
  std::iota(once.begin(), once.end(), 15);
  EXPECT_EQ(driver.UsedLogits(b), once);
  EXPECT_EQ(driver.UsedLogits(c), once);
  EXPECT_THAT(driver.UsedLogits(a), SizeIs(40));
}

TEST(SchedulerPreemptionTest, AContinuationIsPreemptedAndUsesNoLogitsTwice) {
  DriverOptions options = PoolOf(4);
  options.scheduler.step_tokens = 8;
  SchedulerDriver driver(options);
  driver.Submit(16, 40);
  const RequestId scored = driver.Submit(ScoreOf(16, {2, 20, 1, 20, 20}));
  driver.RunDry();
  EXPECT_GT(driver.Preemptions(scored), 0);
  std::vector<int32_t> expected = {15, 16};
  for (int i = 0; i < 3; ++i) {
    for (int32_t position = 16; position < 35; ++position) {
      expected.push_back(position);
    }
  }
  EXPECT_EQ(driver.UsedLogits(scored), expected);
}

TEST(SchedulerPreemptionTest, VictimsAreTakenFromAllModels) {
  DriverOptions options = PoolOf(3);
  options.models = {DriverModel{}, DriverModel{}};
  SchedulerDriver driver(options);
  const RequestId a = driver.Submit(16, 20, 0);
  driver.Step();
  const RequestId b = driver.Submit(20, 20, 1);
  while (driver.Preemptions(b) == 0 && driver.Live(a)) driver.Step();
  EXPECT_EQ(driver.Preemptions(b), 1);
  EXPECT_EQ(driver.Preemptions(a), 0);
  driver.RunDry();
}

TEST(SchedulerPreemptionTest, WhoHasNoBlocksIsNotPreempted) {
  DriverOptions options = PoolOf(3);
  options.models = {DriverModel{}, DriverModel{.block_bytes = {}}};
  SchedulerDriver driver(options);
  driver.Submit(16, 30, 0);
  driver.Submit(16, 30, 0);
  const RequestId newest = driver.Submit(16, 60, 1);
  driver.RunDry();
  EXPECT_GT(driver.scheduler().Stats().preemptions, 0u);
  EXPECT_EQ(driver.Preemptions(newest), 0);
}

TEST(SchedulerPreemptionTest,
     AfterThreePreemptionsItComesBackWithItsWorstCase) {
  SchedulerDriver driver(PoolOf(6));
  driver.Submit(16, 80);
  driver.Submit(16, 32);
  driver.Submit(16, 16);
  const RequestId newest = driver.Submit(32, 48);  // 5 blocks at worst
  while (driver.Preemptions(newest) < Scheduler::kMaxPreemptions) {
    ASSERT_TRUE(driver.Live(newest));
    driver.Step();
  }
  while (!driver.Runs(newest)) driver.Step();
  EXPECT_GE(driver.pool().bytes().used, 5 * 1024);
  driver.RunDry();
  EXPECT_EQ(driver.Preemptions(newest), Scheduler::kMaxPreemptions);
  EXPECT_EQ(driver.Generated(newest), 48);
}

// Requests in every state: running, preempted, waiting at the head, in the
// middle and at the end of the queue.
class EveryStateTest : public ::testing::TestWithParam<int> {
 protected:
  EveryStateTest() : driver_(PoolOf(4)) {}

  void Fill(absl::Time deadline_of_chosen) {
    for (int i = 0; i < 6; ++i) {
      Request request = RequestOf(16, 40);
      if (i == GetParam()) request.deadline = deadline_of_chosen;
      ids_.push_back(driver_.Submit(request));
    }
    while (driver_.scheduler().Stats().preemptions == 0) driver_.Step();
    EXPECT_TRUE(driver_.Runs(ids_[0]));
    EXPECT_FALSE(driver_.Runs(ids_[5]));
  }

  RequestId chosen() const { return ids_[static_cast<size_t>(GetParam())]; }

  SchedulerDriver driver_;
  std::vector<RequestId> ids_;
};

TEST_P(EveryStateTest, ACancelEndsItBeforeTheNextPlan) {
  Fill(absl::InfiniteFuture());
  driver_.Cancel(chosen());
  driver_.Cancel(chosen());
  const StepPlan plan = driver_.Step();
  EXPECT_THAT(plan.ended, SizeIs(1));
  EXPECT_EQ(driver_.Ended(chosen()), EndCause::kCancelled);
  driver_.Cancel(chosen());  // has ended: no effect
  driver_.RunDry();
}

TEST_P(EveryStateTest, ADeadlineEndsItBeforeTheNextPlan) {
  const absl::Time deadline = driver_.now + absl::Seconds(10);
  Fill(deadline);
  EXPECT_EQ(driver_.scheduler().NextDeadline(), deadline);
  driver_.now = deadline - absl::Nanoseconds(1);
  EXPECT_THAT(driver_.Step().ended, IsEmpty());
  driver_.now = deadline;
  EXPECT_THAT(driver_.Step().ended, SizeIs(1));
  EXPECT_EQ(driver_.Ended(chosen()), EndCause::kDeadline);
  EXPECT_EQ(driver_.scheduler().NextDeadline(), absl::InfiniteFuture());
  driver_.RunDry();
}

INSTANTIATE_TEST_SUITE_P(States, EveryStateTest, ::testing::Range(0, 6));

}  // namespace
}  // namespace headcount
