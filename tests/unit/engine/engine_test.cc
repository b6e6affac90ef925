#include "engine/engine.h"

#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine/engine_fixture.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int32_t kContext = 300;

// A tiny model of 320 token ids; tests that need no real text use it.
ModelSpec Tiny() {
  return {.path = TinyPath("llama_gqa"), .max_context = kContext};
}

std::vector<int32_t> Ids(size_t count) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(10 + i * 7 % 300));
  }
  return ids;
}

Request Endless(size_t prompt_tokens = 8) {
  Request request = MakeRequest(Ids(prompt_tokens), 10000);
  request.sampling.ignore_eos = true;
  return request;
}

class EngineTest : public ::testing::Test {
 protected:
  void Create(const EngineOptions& options = {.kv_pool_bytes = 8 * kSlab},
              const std::vector<ModelSpec>& models = {Tiny()}) {
    engine_ = MakeEngine(models, options, &clock_);
  }

  RequestId Submit(const Request& request) {
    recorders_.push_back(std::make_shared<Recorder>());
    return engine_->Submit(request, recorders_.back()).value();
  }
  absl::Status Refusal(const Request& request) {
    const auto recorder = std::make_shared<Recorder>();
    const absl::Status status = engine_->Submit(request, recorder).status();
    EXPECT_FALSE(recorder->ended());
    return status;
  }

  Heard heard(size_t index) const { return recorders_[index]->heard(); }

  void ExpectAllEndedOnce() const {
    for (size_t i = 0; i < recorders_.size(); ++i) {
      EXPECT_THAT(heard(i).endings, SizeIs(1)) << i;
      EXPECT_FALSE(heard(i).late) << i;
    }
    const EngineSnapshot snapshot = engine_->Snapshot();
    EXPECT_EQ(snapshot.pool.used, 0);
    EXPECT_EQ(snapshot.queued_tokens, 0);
    for (const EngineSnapshot::PerModel& model : snapshot.models) {
      EXPECT_EQ(model.running + model.waiting, 0);
    }
  }

  ManualClock clock_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::shared_ptr<Recorder>> recorders_;
};

TEST_F(EngineTest, AnIdleEngineHasNothingToDo) {
  Create();
  EXPECT_FALSE(engine_->StepOnce());
}

TEST_F(EngineTest, TheContextEndsARequestWithLength) {
  Create();
  Submit(Endless(kContext - 5));
  while (engine_->StepOnce()) {
  }
  EXPECT_EQ(heard(0).ending().cause, EndCause::kLength);
  EXPECT_THAT(heard(0).tokens, SizeIs(5));
  ExpectAllEndedOnce();
}

TEST_F(EngineTest, RefusesWhatIsOverTheContext) {
  Create();
  const absl::Status status = Refusal(Endless(kContext));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("300"));
  EXPECT_FALSE(engine_->StepOnce());
}

TEST_F(EngineTest, RefusesWhatAnEmptyPoolCannotHold) {
  // A block of mailroom has 96 KiB: a slab holds 21 of them, 336 tokens.
  Create({.kv_pool_bytes = kSlab}, {{.path = MailroomPath()}});
  const absl::Status status = Refusal(MakeRequest(Ids(300), 38));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("22 KV blocks"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("21 available"));
}

TEST_F(EngineTest, RefusesWhatTheQueueHasNoRoomFor) {
  Create({.kv_pool_bytes = 8 * kSlab,
          .max_queued_requests = 3,
          .max_queued_tokens = 100});
  Submit(Endless(90));
  EXPECT_EQ(Refusal(Endless(11)).code(), absl::StatusCode::kResourceExhausted);
  Submit(Endless(5));
  Submit(Endless(5));
  const absl::Status status = Refusal(Endless(1));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("3 requests of 100"));
  engine_->StepOnce();   // all three run now
  Submit(Endless(200));  // an empty queue takes anything that fits
}

TEST_F(EngineTest, RefusesADeadlineThatHasPassed) {
  Create();
  Request request = Endless();
  request.deadline = clock_.Now();
  EXPECT_EQ(Refusal(request).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(EngineTest, CreateRefusesAPoolTooSmallForItsModels) {
  std::unique_ptr<Backend> backend = CreateCpuBackend({.threads = 1});
  ModelOptions options;
  options.path = TinyPath("llama_gqa");
  std::vector<EngineModel> models(1);
  models[0].model = Model::Load(options, backend.get()).value();
  const absl::Status status =
      Engine::Create({.kv_pool_bytes = 4096}, std::move(backend),
                     std::move(models), &clock_)
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("kv_pool: 4.0 KiB"));
}

TEST_F(EngineTest, ACancelEndsARunningRequest) {
  Create();
  const RequestId id = Submit(Endless());
  Submit(MakeRequest(Ids(5), 3));
  for (int i = 0; i < 4; ++i) engine_->StepOnce();
  engine_->Cancel(id);
  engine_->Cancel(id);
  while (engine_->StepOnce()) {
  }
  engine_->Cancel(id);
  engine_->StepOnce();
  EXPECT_EQ(heard(0).ending().cause, EndCause::kCancelled);
  EXPECT_EQ(heard(0).ending().status.code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(heard(0).tokens, SizeIs(4));
  EXPECT_EQ(heard(1).ending().cause, EndCause::kLength);
  ExpectAllEndedOnce();
}

TEST_F(EngineTest, ADeadlineEndsARunningRequestWithWhatItHas) {
  Create();
  Request request = Endless();
  request.deadline = clock_.Now() + absl::Seconds(3);
  Submit(request);
  for (int i = 0; i < 3; ++i) {
    engine_->StepOnce();
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_THAT(heard(0).endings, IsEmpty());
  engine_->StepOnce();
  EXPECT_EQ(heard(0).ending().cause, EndCause::kDeadline);
  EXPECT_EQ(heard(0).ending().status.code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(heard(0).tokens, SizeIs(3));
  ExpectAllEndedOnce();
}

// A client whose time is up hangs up, and may be heard first.
TEST_F(EngineTest, ACancelAtTheDeadlineCountsAsTheDeadline) {
  Create();
  Request request = Endless();
  request.deadline = clock_.Now() + absl::Seconds(1);
  const RequestId at = Submit(request);
  const RequestId before = Submit(Endless());
  engine_->StepOnce();
  clock_.Advance(absl::Seconds(1));
  engine_->Cancel(at);
  engine_->Cancel(before);
  engine_->StepOnce();
  EXPECT_EQ(heard(0).ending().cause, EndCause::kDeadline);
  EXPECT_EQ(heard(1).ending().cause, EndCause::kCancelled);
  ExpectAllEndedOnce();
}

TEST_F(EngineTest, AnEndingTellsWhenThingsHappened) {
  Create({.kv_pool_bytes = 8 * kSlab, .step_tokens = 10});
  const absl::Time start = clock_.Now();
  Submit(MakeRequest(Ids(15), 2));
  do {
    clock_.Advance(absl::Seconds(1));
  } while (engine_->StepOnce());
  const Ending ending = heard(0).ending();
  EXPECT_EQ(ending.submitted, start);
  EXPECT_EQ(ending.scheduled, start + absl::Seconds(1));
  EXPECT_EQ(ending.first_token, start + absl::Seconds(2));
  EXPECT_EQ(ending.ended, start + absl::Seconds(3));
  EXPECT_EQ(ending.prompt_tokens, 15);
  EXPECT_EQ(ending.generated_tokens, 2);
}

TEST_F(EngineTest, TheSnapshotCountsWhatRunsAndWaits) {
  ModelSpec one_at_a_time = Tiny();
  one_at_a_time.max_concurrent = 1;
  Create({.kv_pool_bytes = 8 * kSlab}, {Tiny(), one_at_a_time});
  for (int i = 0; i < 3; ++i) {
    Request request = Endless(20);
    request.model = 1;
    Submit(request);
  }
  EXPECT_EQ(engine_->Snapshot().models[1].waiting, 3);
  EXPECT_EQ(engine_->Snapshot().queued_tokens, 60);
  engine_->StepOnce();
  const EngineSnapshot snapshot = engine_->Snapshot();
  EXPECT_EQ(snapshot.models[0].running, 0);
  EXPECT_EQ(snapshot.models[1].running, 1);
  EXPECT_EQ(snapshot.models[1].waiting, 2);
  EXPECT_EQ(snapshot.models[1].kv_tokens, 20);
  EXPECT_EQ(snapshot.queued_tokens, 40);
  EXPECT_EQ(snapshot.steps, 1u);
  EXPECT_EQ(snapshot.step_tokens, 20u);
  EXPECT_EQ(snapshot.models[1].kv.used, snapshot.pool.used);
  EXPECT_EQ(snapshot.pool.used,
            2 * engine_->model(1)->model->geometries()[0].block_bytes());
  EXPECT_EQ(snapshot.pool_capacity, 8 * kSlab);
  EXPECT_GT(snapshot.tokens_per_second, 0);
  clock_.Advance(absl::Hours(1));
  EXPECT_NEAR(engine_->Snapshot().tokens_per_second, 0, 1e-9);
}

TEST_F(EngineTest, TheObserverHearsOfEveryStep) {
  Create();
  std::vector<StepReport> reports;
  engine_->SetStepObserver(
      [](void* context, const StepReport& report) {
        static_cast<std::vector<StepReport>*>(context)->push_back(report);
      },
      &reports);
  Submit(MakeRequest(Ids(12), 3));
  while (engine_->StepOnce()) {
  }
  ASSERT_THAT(reports, SizeIs(3));
  EXPECT_EQ(reports[0].prefill_tokens, 12);
  EXPECT_EQ(reports[0].decode_tokens, 0);
  EXPECT_EQ(reports[2].prefill_tokens, 0);
  EXPECT_EQ(reports[2].decode_tokens, 1);
  EXPECT_EQ(reports[2].sequences, 1);
}

TEST_F(EngineTest, StopEndsWhatIsLeft) {
  Create();
  Submit(Endless());
  Submit(Endless());
  engine_->StepOnce();
  Submit(Endless());
  engine_->Stop();
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(heard(i).ending().status.code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(Refusal(Endless()).code(), absl::StatusCode::kUnavailable);
  ExpectAllEndedOnce();
}

TEST_F(EngineTest, StopEndsTheStepThread) {
  Create();
  engine_->Start();
  Submit(Endless());
  recorders_[0]->AwaitTokens(2);
  engine_->Stop();
  EXPECT_TRUE(recorders_[0]->ended());
  ExpectAllEndedOnce();
}

TEST_F(EngineTest, DrainLetsWhatRunsFinishAndNothingBegin) {
  ModelSpec one_at_a_time = Tiny();
  one_at_a_time.max_concurrent = 1;
  Create({.kv_pool_bytes = 8 * kSlab}, {one_at_a_time});
  engine_->Start();
  Submit(MakeRequest(Ids(8), 200));
  recorders_[0]->AwaitTokens(1);
  Submit(Endless());
  engine_->Drain(absl::InfiniteFuture());
  EXPECT_EQ(heard(0).ending().status.code(), absl::StatusCode::kOk);
  EXPECT_EQ(heard(1).ending().cause, EndCause::kError);
  EXPECT_EQ(heard(1).ending().status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(heard(1).tokens, IsEmpty());
  EXPECT_EQ(Refusal(Endless()).code(), absl::StatusCode::kUnavailable);
  ExpectAllEndedOnce();
}

TEST_F(EngineTest, DrainEndsWhatRunsAtItsDeadline) {
  Create();
  engine_->Start();
  Submit(Endless());
  recorders_[0]->AwaitTokens(1);
  engine_->Drain(clock_.Now());
  EXPECT_EQ(heard(0).ending().status.code(), absl::StatusCode::kUnavailable);
  ExpectAllEndedOnce();
}

// Several threads submit, cancel and look on, over two models that share a
// pool too small for them.
TEST_F(EngineTest, StormsOfCancelsEndEveryRequestOnce) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 40;
  Create({.kv_pool_bytes = 2 * kSlab, .step_tokens = 64},
         {Tiny(), {.path = TinyPath("llama_mqa"), .max_context = kContext}});
  engine_->Start();
  std::vector<std::vector<std::shared_ptr<Recorder>>> sinks(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &sinks] {
      for (int i = 0; i < kRequests; ++i) {
        Request request = MakeRequest(Ids(static_cast<size_t>(5 + i)), 150);
        request.model = (t + i) % 2;
        request.sampling.temperature = 1.0f;
        request.sampling.seed = static_cast<uint64_t>(i);
        const auto recorder = std::make_shared<Recorder>();
        const absl::StatusOr<RequestId> id = engine_->Submit(request, recorder);
        ASSERT_TRUE(id.ok()) << id.status();
        sinks[static_cast<size_t>(t)].push_back(recorder);
        if (i % 4 != 0) recorder->AwaitTokens(static_cast<size_t>(i % 3));
        engine_->Cancel(*id);
        engine_->Snapshot();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::map<EndCause, int> causes;
  for (const auto& of_thread : sinks) {
    for (const std::shared_ptr<Recorder>& recorder : of_thread) {
      recorder->AwaitEnd();
    }
  }
  engine_->Drain(absl::InfiniteFuture());
  for (const auto& of_thread : sinks) {
    for (const std::shared_ptr<Recorder>& recorder : of_thread) {
      EXPECT_THAT(recorder->heard().endings, SizeIs(1));
      EXPECT_FALSE(recorder->heard().late);
      ++causes[recorder->heard().ending().cause];
    }
  }
  EXPECT_GT(causes[EndCause::kCancelled], 0);
  EXPECT_EQ(causes[EndCause::kError], 0);
  ExpectAllEndedOnce();
}

}  // namespace
}  // namespace headcount
