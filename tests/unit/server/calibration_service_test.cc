// CalibrationService over a real channel, with an engine that does what the
// test says.
#include <cmath>

#include "headcount/v1/calibration.grpc.pb.h"
#include "service_fixture.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

config::v1::ServerConfig Calibrating() {
  config::v1::ServerConfig config = LocalConfig();
  config.set_calibration("on");
  return config;
}

class CalibrationServiceTest : public ServiceTest {
 protected:
  CalibrationServiceTest() : ServiceTest(Calibrating()) {
    stub_ = v1::CalibrationService::NewStub(channel_);
  }

  // So many settings on so many examples of three tokens.
  static v1::ScoreGatesRequest Targets(int examples, int settings) {
    v1::ScoreGatesRequest request;
    request.set_model("mail");
    for (int i = 0; i < examples; ++i) {
      v1::CalibrationExample* example = request.add_examples();
      example->mutable_prompt_tokens()->add_ids(1);
      for (const int id : {4, 5, 6}) {
        example->mutable_target_tokens()->add_ids(id);
      }
    }
    for (int i = 0; i < settings; ++i) request.add_gates()->add_layers();
    return request;
  }

  grpc::Status ScoreGates(const v1::ScoreGatesRequest& request,
                          std::vector<v1::ScoreGatesResponse>* responses) {
    grpc::ClientContext context;
    const auto reader = stub_->ScoreGates(&context, request);
    v1::ScoreGatesResponse response;
    while (reader->Read(&response)) responses->push_back(response);
    return reader->Finish();
  }

  std::unique_ptr<v1::CalibrationService::Stub> stub_;
};

// A setting is as far away as it is late: 1, 2, 3 nats at the three places of
// the first one, twice that of the second, ...
class Distances {
 public:
  void operator()(const Request& request,
                  const std::shared_ptr<RequestSink>& sink) {
    Scores scores;
    for (size_t k = 0; k < request.continuations.size(); ++k) {
      scores.logprobs.emplace_back(request.continuations[k].size(), -0.5f);
    }
    if (request.reference_rows != nullptr) {
      ++*settings_;
      for (int place = 1; place <= 3; ++place) {
        scores.divergences.push_back(place * *settings_);
      }
    }
    sink->OnScores(std::move(scores));
    sink->OnEnd(FakeEngine::MakeEnding(EndCause::kLength, 4, 0));
  }

 private:
  std::shared_ptr<int> settings_ = std::make_shared<int>(0);
};

Scores SomeScores(const Request& request) {
  Scores scores;
  scores.logprobs.resize(request.continuations.size(), {-1.0f});
  if (request.reference_rows != nullptr) scores.divergences = {0.5};
  return scores;
}

TEST_F(ServiceTest, CalibrationIsOffUnlessAskedFor) {
  const auto stub = v1::CalibrationService::NewStub(channel_);
  grpc::ClientContext context;
  const auto reader =
      stub->ScoreGates(&context, v1::ScoreGatesRequest::default_instance());
  v1::ScoreGatesResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("serve --calibration"));
  EXPECT_EQ(engine_->num_submitted(), 0u);
}

TEST_F(CalibrationServiceTest, TellsTheMeanOverThePlacesInOrder) {
  engine_->SetScript(Distances());
  std::vector<v1::ScoreGatesResponse> responses;
  const grpc::Status status = ScoreGates(Targets(3, 4), &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(responses.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    const v1::ScoreGatesResponse& response = responses[static_cast<size_t>(i)];
    EXPECT_EQ(response.example(), i);
    EXPECT_EQ(response.places(), 3);
    EXPECT_EQ(response.dense().kl(), 0);
    EXPECT_EQ(response.dense().expected_logprob(), -1.5);
    ASSERT_EQ(response.scores_size(), 4);
    for (int s = 0; s < 4; ++s) {
      EXPECT_EQ(response.scores(s).kl(), 2 * (4 * i + s + 1));
    }
  }
  EXPECT_EQ(engine_->num_submitted(), 15u);
  EXPECT_EQ(Health("headcount.v1.CalibrationService"),
            HealthCheckResponse::SERVING);
}

TEST_F(CalibrationServiceTest, ComparesLabelsAmongEachOther) {
  // Dense: 1/2 and 1/2; gated: 1/4 and 3/4.
  engine_->SetScript(
      [](const Request& request, const std::shared_ptr<RequestSink>& sink) {
        static std::atomic<int> runs{0};
        EXPECT_EQ(request.reference_rows, nullptr);
        EXPECT_EQ(request.kept_rows, nullptr);
        Scores scores;
        scores.logprobs = {{-3.0f}, {-3.0f}};
        if (runs++ == 1) scores.logprobs[1][0] += std::log(3.0f);
        sink->OnScores(std::move(scores));
        sink->OnEnd(FakeEngine::MakeEnding(EndCause::kLength, 4, 0));
      });
  v1::ScoreGatesRequest request;
  request.set_model("mail");
  request.add_gates()->add_layers();
  request.add_examples()->set_classify_text("hello");
  request.mutable_examples(0)->set_label("ham");
  std::vector<v1::ScoreGatesResponse> responses;
  const grpc::Status status = ScoreGates(request, &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(responses.size(), 1u);
  EXPECT_EQ(responses[0].places(), 1);
  EXPECT_EQ(responses[0].dense().label(), "spam");
  EXPECT_NEAR(responses[0].dense().expected_logprob(), std::log(0.5), 1e-6);
  EXPECT_EQ(responses[0].scores(0).label(), "ham");
  EXPECT_NEAR(responses[0].scores(0).expected_logprob(), std::log(0.75), 1e-6);
  EXPECT_NEAR(responses[0].scores(0).kl(),
              0.5 * std::log(0.5 / 0.25) + 0.5 * std::log(0.5 / 0.75), 1e-6);
}

TEST_F(CalibrationServiceTest, HasSoManyRequestsInTheEngineAndNoMore) {
  grpc::ClientContext context;
  const auto reader =
      stub_->ScoreGates(&context, Targets(1, 2 * kMaxCalibrationRequests));
  const auto [dense, sink] = engine_->AwaitHeld(1);
  EXPECT_NE(dense.kept_rows, nullptr);
  EXPECT_EQ(dense.kept_rows->places(), 3u);
  sink->OnScores(SomeScores(dense));
  engine_->EndNewest(1, FakeEngine::MakeEnding(EndCause::kLength, 4, 0));
  engine_->AwaitHeld(kMaxCalibrationRequests);
  EXPECT_EQ(engine_->num_submitted(), 1 + kMaxCalibrationRequests);
  EXPECT_EQ(engine_->last_request().reference_rows, dense.kept_rows);
  // One goes, one comes.
  const auto [gated, gated_sink] = engine_->AwaitHeld(kMaxCalibrationRequests);
  gated_sink->OnScores(SomeScores(gated));
  engine_->EndNewest(kMaxCalibrationRequests,
                     FakeEngine::MakeEnding(EndCause::kLength, 4, 0));
  engine_->AwaitHeld(kMaxCalibrationRequests);
  EXPECT_EQ(engine_->num_submitted(), 2 + kMaxCalibrationRequests);

  context.TryCancel();
  engine_->AwaitCancels(kMaxCalibrationRequests);
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ExpectServes();
}

TEST_F(CalibrationServiceTest, KeepsDenseRowsOnlyWhileItsSettingsRun) {
  grpc::ClientContext context;
  const auto reader = stub_->ScoreGates(&context, Targets(1, 1));
  std::weak_ptr<const LogprobRows> rows;
  for (int run = 0; run < 2; ++run) {
    const auto [request, sink] = engine_->AwaitHeld(1);
    if (run == 0) rows = request.kept_rows;
    EXPECT_FALSE(rows.expired());
    sink->OnScores(SomeScores(request));
    engine_->EndNewest(1, FakeEngine::MakeEnding(EndCause::kLength, 4, 0));
  }
  v1::ScoreGatesResponse response;
  EXPECT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.scores(0).kl(), 0.5);
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_TRUE(reader->Finish().ok());
  engine_->SetScript(CountToThree);
  EXPECT_TRUE(
      Generate(Prompt()).ok());  // the engine's copy of the last request
  EXPECT_TRUE(rows.expired());
}

TEST_F(CalibrationServiceTest, WaitsForItsOwnRequestsWhenTheQueueIsFull) {
  engine_->Refuse(absl::ResourceExhaustedError("the queue is full"));
  // With nothing of its own in the engine there is nothing to wait for.
  std::vector<v1::ScoreGatesResponse> responses;
  const grpc::Status status = ScoreGates(Targets(2, 0), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("examples[0]: "));

  engine_->Refuse(absl::OkStatus());
  grpc::ClientContext context;
  const auto reader = stub_->ScoreGates(&context, Targets(1, 3));
  const auto [dense, sink] = engine_->AwaitHeld(1);
  sink->OnScores(SomeScores(dense));
  engine_->RefuseAfter(2, absl::ResourceExhaustedError("the queue is full"));
  engine_->EndNewest(1, FakeEngine::MakeEnding(EndCause::kLength, 4, 0));
  engine_->AwaitHeld(2);
  engine_->SetScript(Distances());
  engine_->Refuse(absl::OkStatus());
  for (size_t left = 2; left > 0; --left) {
    const auto [gated, gated_sink] = engine_->AwaitHeld(left);
    gated_sink->OnScores(SomeScores(gated));
    engine_->EndNewest(left, FakeEngine::MakeEnding(EndCause::kLength, 4, 0));
  }
  v1::ScoreGatesResponse response;
  EXPECT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.scores_size(), 3);
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(CalibrationServiceTest, AFailureInTheEngineIsTheCalls) {
  grpc::ClientContext context;
  const auto reader = stub_->ScoreGates(&context, Targets(3, 2));
  engine_->AwaitHeld(3);
  Ending ending = FakeEngine::MakeEnding(EndCause::kError, 4, 0);
  ending.status = absl::InternalError("broken");
  engine_->EndNewest(3, std::move(ending));
  engine_->AwaitCancels(2);
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_THAT(status.error_message(), HasSubstr("examples[2]: broken"));
  ExpectServes();
}

TEST_F(CalibrationServiceTest, SoManyCallsAtOnceAndNoMore) {
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::ScoreGatesResponse>>>
      readers;
  for (size_t i = 0; i < kMaxCalibrationCalls; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->ScoreGates(contexts.back().get(), Targets(1, 1)));
    engine_->AwaitHeld(i + 1);
  }
  std::vector<v1::ScoreGatesResponse> responses;
  const grpc::Status status = ScoreGates(Targets(1, 1), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (const auto& context : contexts) context->TryCancel();
  for (const auto& reader : readers) reader->Finish();
}

TEST_F(CalibrationServiceTest, IsRefusedWhileTheServerDrains) {
  grpc::ClientContext context;
  const auto reader = stub_->ScoreGates(&context, Targets(1, 1));
  engine_->AwaitHeld(1);
  std::thread drain([this] { server_->Drain(); });
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  drain.join();
}

}  // namespace
}  // namespace headcount
