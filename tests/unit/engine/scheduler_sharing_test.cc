// How models, variants and tenants share the pool and the device.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "engine/scheduler.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine/scheduler_driver.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Models with blocks of a whole slab of 1024 bytes.
DriverOptions ModelsOf(int64_t slabs, std::vector<PoolQuota> quotas) {
  DriverOptions options = PoolOf(slabs);
  options.models.clear();
  for (const PoolQuota& quota : quotas) {
    options.models.push_back({.quota = quota});
  }
  return options;
}

TEST(SchedulerSharingTest, AnIdleFloorIsLent) {
  SchedulerDriver driver(ModelsOf(8, {{}, {.floor_bytes = 4 * 1024}}));
  std::vector<RequestId> ids;
  for (int i = 0; i < 4; ++i) ids.push_back(driver.Submit(17, 10, 0));
  driver.Step();
  for (const RequestId id : ids) EXPECT_TRUE(driver.Runs(id));
  EXPECT_EQ(driver.pool().bytes().used, 8 * 1024);
  driver.RunDry();
}

TEST(SchedulerSharingTest, ABorrowerIsPreemptedForAnothersFloor) {
  SchedulerDriver driver(ModelsOf(8, {{}, {.floor_bytes = 4 * 1024}}));
  std::vector<RequestId> borrowers;
  for (int i = 0; i < 4; ++i) borrowers.push_back(driver.Submit(16, 16, 0));
  driver.Step();
  driver.Step();
  EXPECT_EQ(driver.pool().bytes(0).used, 8 * 1024);
  const RequestId owner = driver.Submit(3 * 16, 2, 1);
  driver.Step();
  driver.Step();
  EXPECT_TRUE(driver.Runs(owner)) << "while the borrower runs";
  EXPECT_EQ(driver.Preemptions(borrowers.front()), 0);
  EXPECT_EQ(driver.Preemptions(borrowers.back()), 1) << "the newest";
  driver.RunDry();
}

// Users of a model with windows waited for others to end, whatever its floor.
TEST(SchedulerSharingTest, AFloorIsForAllGroupsOfAModelAtOnce) {
  DriverOptions options = ModelsOf(4, {{}, {.floor_bytes = 2 * 1024}});
  options.models[1].block_bytes = {1024, 1024};
  options.models[1].windows = {0, 32};
  SchedulerDriver driver(options);
  for (int i = 0; i < 3; ++i) driver.Submit(8, 8, 0);
  driver.Step();
  EXPECT_EQ(driver.pool().bytes().free, 1024) << "enough for either group";
  const RequestId owner = driver.Submit(8, 8, 1);
  driver.Step();
  driver.Step();
  EXPECT_TRUE(driver.Runs(owner));
  driver.RunDry();
}

// They were preempted in vain: an urgent request took the room at once.
TEST(SchedulerSharingTest, WhatAFloorTakesBackIsForItsOwner) {
  DriverOptions options = ModelsOf(4, {{}, {.floor_bytes = 2 * 1024}});
  options.models[1].base = 0;
  SchedulerDriver driver(options);
  for (int i = 0; i < 4; ++i) driver.Submit(8, 8, 0);
  driver.Step();
  Request urgent = RequestOf(8, 8);
  urgent.priority = 1;
  const RequestId other = driver.Submit(std::move(urgent));
  const RequestId owner = driver.Submit(20, 8, 1);
  driver.Step();
  EXPECT_TRUE(driver.Runs(owner));
  EXPECT_FALSE(driver.Runs(other));
  driver.RunDry();
}

// Each slab that the borrower has a block in holds one of the oldest as well.
TEST(SchedulerSharingTest, NobodyIsPreemptedForAFloorThatStaysOutOfReach) {
  DriverOptions options = ModelsOf(4, {{}, {.floor_bytes = 2 * 2048}});
  options.slab_bytes = 2048;
  SchedulerDriver driver(options);
  const RequestId oldest = driver.Submit(12, 36, 0);
  const RequestId borrower = driver.Submit(12, 36, 0);
  while (driver.pool().bytes().used < 6 * 1024) driver.Step();
  ASSERT_EQ(driver.pool().bytes(0).lent, 3 * 2048) << "they grow side by side";
  const RequestId owner = driver.Submit(3 * 16, 2, 1);
  driver.Step();
  EXPECT_TRUE(driver.Runs(oldest));
  EXPECT_TRUE(driver.Runs(borrower)) << "its blocks would free no slab";
  driver.RunDry();
  EXPECT_EQ(driver.Preemptions(borrower), 0);
  EXPECT_EQ(driver.Generated(owner), 2);
}

// It is owed its floor and not more, so with that alone it could not start.
TEST(SchedulerSharingTest, NobodyIsPreemptedForMoreThanAFloor) {
  SchedulerDriver driver(ModelsOf(8, {{}, {.floor_bytes = 2 * 1024}}));
  for (int i = 0; i < 4; ++i) driver.Submit(20, 8, 0);
  driver.Step();
  driver.Step();
  ASSERT_EQ(driver.pool().bytes().used, 8 * 1024);
  const RequestId owner = driver.Submit(3 * 16, 2, 1);
  driver.RunDry();
  EXPECT_EQ(driver.scheduler().Stats().preemptions, 0u);
  EXPECT_EQ(driver.Generated(owner), 2);
}

TEST(SchedulerSharingTest, ACacheOverItsFloorGivesWayFirst) {
  SchedulerDriver driver(ModelsOf(8, {{}, {.floor_bytes = 4 * 1024}}));
  for (int i = 0; i < 4; ++i) driver.Submit(2 * 16, 1, 0);
  driver.RunDry();
  EXPECT_EQ(driver.pool().bytes(0).cached, 8 * 1024);
  const RequestId owner = driver.Submit(4 * 16 - 1, 1, 1);
  driver.Step();
  EXPECT_FALSE(driver.Live(owner));
  EXPECT_EQ(driver.pool().bytes(0).cached, 4 * 1024);
  EXPECT_EQ(driver.scheduler().Stats().preemptions, 0u);
}

TEST(SchedulerSharingTest, AModelStaysUnderItsCeiling) {
  DriverOptions options = ModelsOf(8, {{.ceiling_bytes = 3 * 1024}, {}});
  options.check_preemption_order = false;  // only its own make room for it
  SchedulerDriver driver(options);
  EXPECT_THAT(driver.CheckFits(RequestOf(3 * 16, 2)).message(),
              HasSubstr("need 4 KV blocks, and the whole pool has 3"));
  for (int i = 0; i < 6; ++i) driver.Submit(16, 8, 0);
  const RequestId other = driver.Submit(5 * 16, 2, 1);
  driver.Step();
  driver.Step();
  EXPECT_TRUE(driver.Runs(other)) << "whose room it is";
  driver.RunDry();
}

TEST(SchedulerSharingTest, AModelIsRefusedThatWouldStarveALiveRequest) {
  SchedulerDriver driver(ModelsOf(8, {{}}));
  driver.Submit(6 * 16, 2, 0);
  driver.Step();
  const SchedulerModel greedy = Made({.quota = {.floor_bytes = 2 * 1024}});
  const absl::Status status = driver.scheduler().AddModel(greedy).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("would have 6 KV blocks, and one of "
                                          "its requests needs 7"));
  driver.RunDry();
  EXPECT_EQ(driver.scheduler().AddModel(greedy).value(), 1);
  EXPECT_FALSE(driver.CheckFits(RequestOf(6 * 16, 2)).ok());
  driver.scheduler().RemoveModel(1);
  EXPECT_TRUE(driver.CheckFits(RequestOf(6 * 16, 2)).ok());
}

TEST(SchedulerSharingTest, TheDeviceIsSharedByTimeOverShares) {
  DriverOptions options = PoolOf(64);
  options.models = {{.share = 1}, {.share = 3}};
  SchedulerDriver driver(options);
  driver.Submit(4, 900, 0);
  driver.Submit(4, 900, 1);
  std::map<int, absl::Duration> time;
  for (int i = 0; i < 400; ++i) {
    driver.step_time = absl::Milliseconds(1 + i % 7);
    time[driver.Step().model] += driver.step_time;
  }
  EXPECT_NEAR(absl::FDivDuration(time[1], time[0]), 3, 0.1);
}

TEST(SchedulerSharingTest, AModelThatPausedSavesNoTurnsUp) {
  DriverOptions options = PoolOf(64);
  options.models = {{}, {}};
  SchedulerDriver driver(options);
  driver.Submit(4, 900, 0);
  for (int i = 0; i < 100; ++i) driver.Step();
  driver.Submit(4, 900, 1);
  std::vector<int> turns;
  for (int i = 0; i < 6; ++i) turns.push_back(driver.Step().model);
  EXPECT_EQ(std::count(turns.begin(), turns.end(), 0), 3);
}

TEST(SchedulerSharingTest, VariantsRunInTheStepsOfTheirBase) {
  DriverOptions options = PoolOf(64);
  options.models = {{}, {.base = 0}, {}, {.base = 0}};
  SchedulerDriver driver(options);
  for (int model = 0; model < 4; ++model) driver.Submit(4, 20, model);
  const auto models = [](const StepPlan& plan) {
    std::vector<int> found;
    for (const StepPart& part : plan.parts) {
      found.push_back(part.sequence->model);
    }
    return found;
  };
  EXPECT_THAT(models(driver.Step()), ElementsAre(0, 1, 3));
  EXPECT_THAT(models(driver.Step()), ElementsAre(2));
  driver.RunDry();
  EXPECT_EQ(driver.scheduler().Stats().models[3].kv_tokens, 0);
}

TEST(SchedulerSharingTest, TenantsOfAModelAreAdmittedFairly) {
  DriverOptions options = PoolOf(64);
  options.models[0].max_concurrent = 1;
  SchedulerDriver driver(options);
  Request request = RequestOf(16, 2);
  for (int i = 0; i < 20; ++i) {
    request.tenant = "flood";
    driver.Submit(request);
  }
  for (int i = 0; i < 4; ++i) driver.Step();
  request.tenant = "light";
  const RequestId light = driver.Submit(request);
  for (int i = 0; i < 4; ++i) driver.Step();
  EXPECT_FALSE(driver.Live(light)) << "in its second turn at the latest";
  driver.RunDry();
}

TEST(SchedulerSharingTest, PrioritiesDecideWhoIsAdmittedAndWhoIsPreempted) {
  DriverOptions options = PoolOf(4);
  options.check_preemption_order = false;  // by age alone
  SchedulerDriver driver(options);
  const RequestId oldest = driver.Submit(16, 30);
  Request request = RequestOf(16, 30);
  request.priority = -1;
  const RequestId low = driver.Submit(request);
  request.priority = 2;
  const RequestId high = driver.Submit(request);
  driver.Step();
  driver.Step();
  EXPECT_TRUE(driver.Runs(oldest) && driver.Runs(high));
  EXPECT_FALSE(driver.Runs(low));
  EXPECT_EQ(driver.Preemptions(low), 1);
  driver.RunDry();
}

TEST(SchedulerSharingTest, ModelsComeAndGo) {
  SchedulerDriver driver(ModelsOf(8, {{}, {}}));
  Scheduler& scheduler = driver.scheduler();
  driver.Submit(40, 3, 1);
  driver.RunDry();
  EXPECT_GT(driver.pool().bytes().cached, 0);
  scheduler.RemoveModel(1);
  EXPECT_EQ(driver.pool().bytes().cached, 0) << "its cache goes with it";
  for (int cycle = 0; cycle < 100; ++cycle) {
    EXPECT_EQ(scheduler.AddModel(Made({})).value(), 1);
    driver.Submit(40, 3, 1);
    driver.Submit(40, 3, 0);
    driver.RunDry();
    scheduler.RemoveModel(1);
  }
  EXPECT_EQ(scheduler.Stats().models.size(), 2u);
}

}  // namespace
}  // namespace headcount
