// A device that computes while the host goes on: what a step gave is told while
// it computes the next one.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/engine/engine_fixture.h"
#include "tests/unit/model/recording_backend.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;

using Log = std::vector<std::string>;

class AheadBackend final : public RecordingBackend {
 public:
  explicit AheadBackend(Log* log)
      : RecordingBackend(CreateCpuBackend({})), log_(*log) {}

  bool runs_ahead() const override { return true; }
  void BeginStep(const StepInputs& inputs, const Rope& rope) override {
    log_.push_back("begin");
    RecordingBackend::BeginStep(inputs, rope);
  }
  std::vector<SampleResult> Sample(const float* logits, int64_t vocab,
                                   absl::Span<const SampleRow> rows) override {
    log_.push_back("sample");
    return RecordingBackend::Sample(logits, vocab, rows);
  }

 private:
  Log& log_;
};

class LoggingSink final : public RequestSink {
 public:
  explicit LoggingSink(Log* log) : log_(*log) {}
  void OnScores(Scores) override { log_.push_back("scores"); }
  void OnOutput(Output output) override {
    for (size_t i = 0; i < output.tokens.size(); ++i) log_.push_back("token");
  }
  void OnEnd(Ending) override { log_.push_back("end"); }

 private:
  Log& log_;
};

class EngineAheadTest : public testing::Test {
 protected:
  EngineAheadTest() {
    auto backend = std::make_unique<AheadBackend>(&log_);
    std::vector<EngineModel> models;
    models.push_back(
        LoadModel({.path = MailroomPath()}, options_, backend.get()));
    engine_ =
        Engine::Create(options_, std::move(backend), std::move(models), &clock_)
            .value();
  }

  const EngineOptions options_ = {.kv_pool_bytes = 8 * kSlab,
                                  .step_tokens = 64};
  Log log_;
  const SystemClock clock_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineAheadTest, TokensAreToldWhileTheNextStepIsComputed) {
  ASSERT_TRUE(engine_
                  ->Submit(MakeRequest(MailTokens(0, 10), 3),
                           std::make_shared<LoggingSink>(&log_))
                  .ok());
  while (engine_->StepOnce()) {
  }
  EXPECT_THAT(log_, ElementsAre("begin", "sample",           //
                                "begin", "token", "sample",  //
                                "begin", "token", "sample",  //
                                "token", "end"));
}

TEST_F(EngineAheadTest, AnswersAreThoseOfAnotherDevice) {
  const std::unique_ptr<Engine> other =
      MakeEngine({{.path = MailroomPath()}}, options_, &clock_);
  std::vector<Request> requests;
  for (size_t i = 0; i < 9; ++i) {
    requests.push_back(MakeRequest(MailTokens(i, 5 + 9 * i), 20));
  }
  requests.push_back(MakeScoreRequest(MailTokens(3, 40), {{364}, {370}}));
  const std::vector<Heard> expected = RunAll(other.get(), requests);
  const std::vector<Heard> heard = RunAll(engine_.get(), requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_TRUE(SameAnswer(heard[i], expected[i])) << i;
    EXPECT_FALSE(heard[i].late) << i;
  }
}

// Its last token waits to be told when the request is cancelled.
TEST_F(EngineAheadTest, WhoIsCancelledHearsWhatWasSaidBefore) {
  const absl::StatusOr<RequestId> id = engine_->Submit(
      MakeRequest(MailTokens(0, 10), 30), std::make_shared<LoggingSink>(&log_));
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(engine_->StepOnce());
  ASSERT_TRUE(engine_->StepOnce());
  engine_->Cancel(*id);
  while (engine_->StepOnce()) {
  }
  EXPECT_THAT(log_, ElementsAre("begin", "sample",           //
                                "begin", "token", "sample",  //
                                "token", "end"));
}

TEST_F(EngineAheadTest, WithoutAThreadStoppingTellsTheEnd) {
  ASSERT_TRUE(engine_
                  ->Submit(MakeRequest(MailTokens(0, 10), 30),
                           std::make_shared<LoggingSink>(&log_))
                  .ok());
  ASSERT_TRUE(engine_->StepOnce());
  engine_->Stop();
  EXPECT_THAT(log_, ElementsAre("begin", "sample", "token", "end"));
}

TEST_F(EngineAheadTest, WithoutAThreadRemovingTheModelTellsTheEnd) {
  ASSERT_TRUE(engine_
                  ->Submit(MakeRequest(MailTokens(0, 10), 30),
                           std::make_shared<LoggingSink>(&log_))
                  .ok());
  ASSERT_TRUE(engine_->StepOnce());
  ASSERT_TRUE(engine_->RemoveModel(0, clock_.Now()).ok());
  EXPECT_THAT(log_, ElementsAre("begin", "sample", "token", "end"));
}

TEST_F(EngineAheadTest, AModelThatGoesIsNotGoneBeforeItsNewsAreTold) {
  engine_->Start();
  std::vector<std::shared_ptr<Recorder>> sinks;
  for (size_t i = 0; i < 4; ++i) {
    sinks.push_back(std::make_shared<Recorder>());
    ASSERT_TRUE(
        engine_->Submit(MakeRequest(MailTokens(i, 10), 40), sinks.back()).ok());
  }
  sinks.front()->AwaitTokens(2);
  ASSERT_TRUE(engine_->RemoveModel(0, clock_.Now()).ok());
  for (const std::shared_ptr<Recorder>& sink : sinks) {
    EXPECT_TRUE(sink->ended()) << "before the model was gone";
    EXPECT_FALSE(sink->heard().late);
  }
  engine_->Stop();
}

}  // namespace
}  // namespace headcount
