// Models that come and go while others run.
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine/engine_fixture.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

const EngineOptions kOptions = {.kv_pool_bytes = 8 * kSlab, .step_tokens = 64};

Request Ask(int model, int32_t max_tokens) {
  Request request = MakeRequest(MailTokens(3, 40), max_tokens);
  request.model = model;
  request.sampling.ignore_eos = true;
  return request;
}

class EngineModelsTest : public ::testing::Test {
 protected:
  EngineModel Load(const ModelSpec& spec = {.path = MailroomPath()}) {
    return LoadModel(spec, kOptions, engine_->backend());
  }

  std::shared_ptr<Recorder> Submit(const Request& request) {
    auto recorder = std::make_shared<Recorder>();
    EXPECT_TRUE(engine_->Submit(request, recorder).ok());
    return recorder;
  }

  const SystemClock clock_;
  std::unique_ptr<Engine> engine_ =
      MakeEngine({{.path = MailroomPath()}}, kOptions, &clock_);
};

TEST_F(EngineModelsTest, AModelIsAddedWhileAnotherRuns) {
  const Heard alone = RunAll(engine_.get(), {Ask(0, 60)}).front();
  engine_->Start();
  const auto running = Submit(Ask(0, 60));
  running->AwaitTokens(1);
  EXPECT_EQ(engine_->model(1), nullptr);
  EXPECT_EQ(engine_->AddModel(Load()).value(), 1);
  const auto added = Submit(Ask(1, 60));
  running->AwaitEnd();
  added->AwaitEnd();
  EXPECT_EQ(running->heard().ids(), alone.ids());
  EXPECT_EQ(added->heard().ids(), alone.ids());
  engine_->Stop();
}

TEST_F(EngineModelsTest, AModelThatDoesNotFitChangesNothing) {
  engine_->Start();
  const auto running = Submit(Ask(0, 100));
  running->AwaitTokens(1);
  const absl::Status status =
      engine_
          ->AddModel(Load(
              {.path = MailroomPath(), .quota = {.floor_bytes = 8 * kSlab}}))
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("and all together 18.0 MiB"));
  EXPECT_EQ(engine_->model(1), nullptr);
  running->AwaitEnd();
  EXPECT_EQ(running->heard().ending().cause, EndCause::kLength);
}

// Submitted before the other came, and looked at behind it.
TEST_F(EngineModelsTest, WhatNoLongerFitsIsToldSo) {
  const auto waiting = Submit(Ask(0, 1500));
  ASSERT_TRUE(engine_
                  ->AddModel(Load({.path = MailroomPath(),
                                   .quota = {.floor_bytes = 7 * kSlab}}))
                  .ok());
  while (!waiting->ended()) engine_->StepOnce();
  const Ending ending = waiting->heard().ending();
  // Neither another try nor another server is asked for.
  EXPECT_EQ(ending.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(ending.status.message()),
              HasSubstr("no longer fits"));
}

// For the sanitizer of threads.
TEST_F(EngineModelsTest, AModelMayGoWhileTheEngineStops) {
  for (int cycle = 0; cycle < 10; ++cycle) {
    engine_ = MakeEngine({{.path = MailroomPath()}}, kOptions, &clock_);
    engine_->Start();
    const auto running = Submit(Ask(0, 1000));
    running->AwaitTokens(1);
    std::thread unloads([&] {
      EXPECT_EQ(engine_->RemoveModel(0, absl::InfinitePast()).status().code(),
                absl::StatusCode::kOk);
    });
    engine_->Stop();
    unloads.join();
    EXPECT_TRUE(running->ended());
  }
}

TEST_F(EngineModelsTest, AModelIsRemovedWhenItsRequestsHaveEnded) {
  ASSERT_EQ(engine_->AddModel(Load()).value(), 1);
  engine_->Start();
  const auto other = Submit(Ask(0, 150));
  const auto running = Submit(Ask(1, 30));
  running->AwaitTokens(1);
  EXPECT_EQ(engine_->RemoveModel(1, absl::InfiniteFuture()).value(), 0);
  EXPECT_TRUE(running->ended());
  EXPECT_EQ(running->heard().ending().cause, EndCause::kLength);
  EXPECT_EQ(engine_->model(1), nullptr);
  EXPECT_EQ(
      engine_->Submit(Ask(1, 3), std::make_shared<Recorder>()).status().code(),
      absl::StatusCode::kUnavailable);
  other->AwaitEnd();
  EXPECT_EQ(other->heard().ending().cause, EndCause::kLength);
  EXPECT_EQ(engine_->AddModel(Load()).value(), 1) << "the index is free";
}

TEST_F(EngineModelsTest, RequestsThatLastTooLongEndAsUnavailable) {
  ASSERT_EQ(engine_->AddModel(Load()).value(), 1);
  engine_->Start();
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (int i = 0; i < 3; ++i) recorders.push_back(Submit(Ask(1, 1000)));
  recorders[0]->AwaitTokens(1);
  EXPECT_EQ(engine_->RemoveModel(1, absl::InfinitePast()).value(), 3);
  for (const auto& recorder : recorders) {
    recorder->AwaitEnd();
    const Ending ending = recorder->heard().ending();
    EXPECT_EQ(ending.status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(ending.status.message()),
                HasSubstr("is being unloaded"));
  }
  EXPECT_EQ(engine_->Snapshot().pool.free + engine_->Snapshot().pool.reserved,
            kOptions.kv_pool_bytes)
      << "nothing of it is cached";
}

TEST_F(EngineModelsTest, WithoutAStepThreadModelsComeAndGoToo) {
  for (int cycle = 0; cycle < 20; ++cycle) {
    ASSERT_EQ(engine_->AddModel(Load()).value(), 1);
    const Heard heard = RunAll(engine_.get(), {Ask(1, 4)}).front();
    EXPECT_EQ(heard.ending().cause, EndCause::kLength);
    const auto endless = Submit(Ask(1, 1000));
    EXPECT_EQ(engine_->RemoveModel(1, absl::InfinitePast()).value(), 1);
    EXPECT_TRUE(endless->ended());
  }
}

TEST_F(EngineModelsTest, ManyThreadsAskWhileModelsComeAndGo) {
  engine_->Start();
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back([&, i] {
      for (int n = 0; n < 40; ++n) {
        const auto recorder = std::make_shared<Recorder>();
        if (engine_->Submit(Ask((n + i) % 2, 3), recorder).ok()) {
          recorder->AwaitEnd();
          EXPECT_EQ(recorder->heard().endings.size(), 1u);
        }
      }
    });
  }
  for (int cycle = 0; cycle < 10; ++cycle) {
    ASSERT_EQ(engine_->AddModel(Load()).value(), 1);
    const absl::Time deadline =
        cycle % 2 == 0 ? absl::InfiniteFuture() : absl::InfinitePast();
    EXPECT_TRUE(engine_->RemoveModel(1, deadline).ok());
  }
  for (std::thread& client : clients) client.join();
  engine_->Stop();
  EXPECT_EQ(engine_->Snapshot().pool.used, 0);
}

}  // namespace
}  // namespace headcount
