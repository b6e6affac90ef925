// Variants: models of the engine that share the weights of another.
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

const EngineOptions kOptions = {.kv_pool_bytes = 16 * kSlab, .step_tokens = 64};

// A whole KV head of layer 0, parts of others, and all of layer 3.
HeadMask Ragged() {
  HeadMask mask;
  mask.pruned = {
      {0, {0, 1, 2, 5}}, {2, {4}}, {3, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}};
  return mask;
}

HeadMask Other() {
  HeadMask mask;
  mask.pruned = {{1, {9, 10, 11}}, {5, {0, 3, 6}}};
  return mask;
}

Request Ask(int model, size_t start = 3, int32_t max_tokens = 12) {
  Request request = MakeRequest(MailTokens(start, 10), max_tokens);
  request.model = model;
  request.sampling.ignore_eos = true;
  request.sampling.logprobs = true;
  request.sampling.top_logprobs = 3;
  return request;
}

class EngineVariantsTest : public ::testing::Test {
 protected:
  EngineModel Variant(const HeadMask& mask, PoolQuota quota = {}) {
    return LoadVariant(*engine_->model(0),
                       {.path = "variant", .mask = mask, .quota = quota});
  }

  // What a load with only those heads answers to Ask(0, start).
  Heard Compact(const HeadMask& mask, size_t start = 3) {
    const std::unique_ptr<Engine> engine =
        MakeEngine({{.path = MailroomPath(), .mask = mask}}, kOptions, &clock_);
    return RunAll(engine.get(), {Ask(0, start)}).front();
  }

  std::shared_ptr<Recorder> Submit(const Request& request) {
    auto recorder = std::make_shared<Recorder>();
    EXPECT_TRUE(engine_->Submit(request, recorder).ok());
    return recorder;
  }

  uint64_t steps() const { return engine_->Snapshot().steps; }

  const SystemClock clock_;
  std::unique_ptr<Engine> engine_ =
      MakeEngine({{.path = MailroomPath()}}, kOptions, &clock_);
};

TEST_F(EngineVariantsTest, RunInTheStepsOfTheirBase) {
  ASSERT_EQ(engine_->AddModel(Variant(Ragged())).value(), 1);
  ASSERT_EQ(engine_->AddModel(Variant(Other())).value(), 2);
  // A model of its own with the same weights, which has turns of its own.
  ASSERT_EQ(engine_
                ->AddModel(LoadModel({.path = MailroomPath()}, kOptions,
                                     engine_->backend()))
                .value(),
            3);
  const Heard alone = RunAll(engine_.get(), {Ask(0)}).front();
  const uint64_t steps_alone = steps();

  // Other prompts, so that nothing is found in the prefix cache.
  const std::vector<Heard> together =
      RunAll(engine_.get(), {Ask(0, 20), Ask(1, 20), Ask(2, 20), Ask(1, 40)});
  EXPECT_EQ(steps() - steps_alone, steps_alone);
  EXPECT_EQ(engine_->Snapshot().step_tokens, 5u * (10 + 12 - 1));
  EXPECT_TRUE(SameAnswer(together[0], Compact({}, 20)));
  EXPECT_TRUE(SameAnswer(together[1], Compact(Ragged(), 20)));
  EXPECT_TRUE(SameAnswer(together[2], Compact(Other(), 20)));
  EXPECT_TRUE(SameAnswer(together[3], Compact(Ragged(), 40)));
  EXPECT_FALSE(SameAnswer(together[0], together[1]));

  const uint64_t before = steps();
  RunAll(engine_.get(), {Ask(0, 60), Ask(3, 60)});
  EXPECT_EQ(steps() - before, 2 * steps_alone);
}

TEST_F(EngineVariantsTest, ComeAndGoWhileTheirBaseRuns) {
  const Heard base = RunAll(engine_.get(), {Ask(0, 3, 150)}).front();
  const Heard compact = Compact(Ragged());
  engine_->Start();
  for (int cycle = 0; cycle < 3; ++cycle) {
    const auto running = Submit(Ask(0, 3, 150));
    running->AwaitTokens(1);
    ASSERT_EQ(engine_->AddModel(Variant(Ragged())).value(), 1);
    const auto variant = Submit(Ask(1));
    variant->AwaitEnd();
    EXPECT_TRUE(SameAnswer(variant->heard(), compact));
    EXPECT_EQ(engine_->RemoveModel(1, absl::InfiniteFuture()).value(), 0);
    EXPECT_EQ(engine_->model(1), nullptr);
    running->AwaitEnd();
    EXPECT_TRUE(SameAnswer(running->heard(), base));
  }
  engine_->Stop();
}

TEST_F(EngineVariantsTest, KeepTheirBase) {
  ASSERT_EQ(engine_->AddModel(Variant(Ragged())).value(), 1);
  engine_->Start();
  const absl::Status status =
      engine_->RemoveModel(0, absl::InfiniteFuture()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "it has variants: 'variant'; unload them first");
  const auto still = Submit(Ask(0));
  still->AwaitEnd();
  EXPECT_EQ(still->heard().ending().cause, EndCause::kLength);

  const EngineModel late = Variant(Other());
  EXPECT_TRUE(engine_->RemoveModel(1, absl::InfiniteFuture()).ok());
  EXPECT_TRUE(engine_->RemoveModel(0, absl::InfiniteFuture()).ok());
  const absl::Status gone = engine_->AddModel(late).status();
  EXPECT_EQ(gone.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(gone.message()), HasSubstr("is not loaded"));
  engine_->Stop();
}

TEST_F(EngineVariantsTest, HavePagesAndAQuotaOfTheirOwn) {
  ASSERT_EQ(
      engine_->AddModel(Variant(Ragged(), {.floor_bytes = 2 * kSlab})).value(),
      1);
  const EngineSnapshot snapshot = engine_->Snapshot();
  EXPECT_EQ(snapshot.models[0].kv.floor, 0);
  EXPECT_EQ(snapshot.models[1].kv.floor, 2 * kSlab);
  // Layer 3 has no pages, layer 0 those of 3 of 4 KV heads.
  EXPECT_EQ(engine_->model(1)->heads().kv_bytes_per_token() * 24,
            engine_->model(0)->heads().kv_bytes_per_token() * 19);
}

// The pages of a prefix hold what its heads computed.
TEST_F(EngineVariantsTest, FindOnlyTheirOwnPrefixes) {
  ASSERT_EQ(engine_->AddModel(Variant(Ragged())).value(), 1);
  const auto ask = [&](int model) {
    Request request = MakeRequest(MailTokens(3, 60), 4);
    request.model = model;
    return RunAll(engine_.get(), {request}).front();
  };
  const Heard base = ask(0);
  EXPECT_EQ(ask(0).ending().cached_tokens, 48);
  const Heard variant = ask(1);
  EXPECT_EQ(variant.ending().cached_tokens, 0);
  const Heard again = ask(1);
  EXPECT_EQ(again.ending().cached_tokens, 48);
  EXPECT_TRUE(SameAnswer(variant, again));
  EXPECT_TRUE(SameAnswer(base, ask(0)));
}

TEST_F(EngineVariantsTest, ComeAndGoWhileManyThreadsAsk) {
  const std::vector<Heard> want = {Compact({}), Compact(Ragged())};
  engine_->Start();
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back([&, i] {
      for (int n = 0; n < 30; ++n) {
        const int model = (n + i) % 2;
        const auto recorder = std::make_shared<Recorder>();
        if (!engine_->Submit(Ask(model), recorder).ok()) continue;
        recorder->AwaitEnd();
        const Heard heard = recorder->heard();
        if (heard.ending().cause == EndCause::kLength) {
          EXPECT_TRUE(SameAnswer(heard, want[static_cast<size_t>(model)]));
        } else {
          EXPECT_EQ(heard.ending().status.code(),
                    absl::StatusCode::kUnavailable);
        }
      }
    });
  }
  for (int cycle = 0; cycle < 20; ++cycle) {
    ASSERT_EQ(engine_->AddModel(Variant(Ragged())).value(), 1);
    EXPECT_FALSE(engine_->RemoveModel(0, absl::InfinitePast()).ok());
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
