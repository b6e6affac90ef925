// The services over a real channel, with an engine that does what the test
// says.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "fake_engine.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "headcount/v1/model.grpc.pb.h"
#include "served_models.h"
#include "server/config.h"
#include "server/limits.h"
#include "server/listen_address.h"
#include "server/server.h"

namespace headcount {
namespace {

using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

config::v1::ServerConfig LocalConfig() {
  config::v1::ServerConfig config = DefaultServerConfig();
  config.set_listen("127.0.0.1:0");
  config.set_metrics_listen("127.0.0.1:0");
  config.mutable_drain()->set_grace("0s");
  config.mutable_drain()->set_deadline("1s");
  return config;
}

// "one", "two", ... one token each, then a stop.
void CountToThree(const Request& request,
                  const std::shared_ptr<RequestSink>& sink) {
  const std::array<const char*, 3> words = {"one", " two", " three"};
  for (size_t i = 0; i < words.size(); ++i) {
    Output output;
    output.text = words[i];
    output.tokens.push_back({static_cast<int32_t>(i), -0.5f, {{7, -1.0f}}});
    sink->OnOutput(std::move(output));
  }
  Ending ending = FakeEngine::MakeEnding(
      EndCause::kStop, static_cast<int32_t>(request.prompt.size()), 3);
  ending.stop_string = "END";
  sink->OnEnd(std::move(ending));
}

// Candidates and prompt tokens have log-probabilities -1, -2, ...
void ScoreDownwards(const Request& request,
                    const std::shared_ptr<RequestSink>& sink) {
  PromptScores scores;
  const size_t scored =
      request.score_from.has_value()
          ? request.prompt.size() - static_cast<size_t>(*request.score_from)
          : 0;
  for (size_t i = 1; i <= scored; ++i) {
    scores.prompt_logprobs.push_back(-static_cast<float>(i));
  }
  for (size_t i = 1; i <= request.candidates.size(); ++i) {
    scores.candidate_logprobs.push_back(-static_cast<float>(i));
  }
  sink->OnScores(std::move(scores));
  sink->OnEnd(FakeEngine::MakeEnding(
      EndCause::kLength, static_cast<int32_t>(request.prompt.size()), 0));
}

template <typename T>
T DetailIn(const grpc::Status& status) {
  google::rpc::Status rpc;
  EXPECT_TRUE(rpc.ParseFromString(status.error_details()));
  T detail;
  for (const google::protobuf::Any& any : rpc.details()) {
    if (any.Is<T>()) any.UnpackTo(&detail);
  }
  return detail;
}

// GET of a path of the metrics port; headers and body.
std::string HttpGet(const std::string& address, const std::string& path) {
  const absl::StatusOr<ListenAddress> parsed = ParseListenAddress(address);
  EXPECT_TRUE(parsed.ok());
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(parsed->port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  const std::string request =
      absl::StrCat("GET ", path, " HTTP/1.0\r\nHost: x\r\n\r\n");
  EXPECT_EQ(write(fd, request.data(), request.size()),
            static_cast<ssize_t>(request.size()));
  std::string response;
  std::array<char, 4096> piece;
  for (ssize_t got = 0; (got = read(fd, piece.data(), piece.size())) > 0;) {
    response.append(piece.data(), static_cast<size_t>(got));
  }
  close(fd);
  return response;
}

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() : ServiceTest(LocalConfig()) {}
  explicit ServiceTest(const config::v1::ServerConfig& config) {
    auto engine = std::make_unique<FakeEngine>(2);
    engine_ = engine.get();
    std::vector<ServedModel> models;
    models.push_back(MakeServedModel("mail", 0, {"spam", "ham"}));
    models.push_back(MakeServedModel("wordy", 1, {"spam", "not spam"}));
    absl::StatusOr<std::unique_ptr<Server>> server =
        Server::CreateAround(config, std::move(engine), std::move(models));
    CHECK(server.ok()) << server.status();
    server_ = *std::move(server);
    const absl::Status started = server_->Start();
    CHECK(started.ok()) << started;
    channel_ = grpc::CreateChannel(server_->grpc_address(),
                                   grpc::InsecureChannelCredentials());
    inference_ = v1::InferenceService::NewStub(channel_);
    model_stub_ = v1::ModelService::NewStub(channel_);
    health_ = grpc::health::v1::Health::NewStub(channel_);
  }

  static v1::GenerateRequest Prompt(int max_tokens = 8) {
    v1::GenerateRequest request;
    request.set_model("mail");
    request.set_text("hello");
    request.set_max_tokens(max_tokens);
    return request;
  }

  // Reads a whole stream.
  grpc::Status Generate(grpc::ClientContext* context,
                        const v1::GenerateRequest& request,
                        std::vector<v1::GenerateResponse>* responses) {
    const auto reader = inference_->Generate(context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) responses->push_back(response);
    return reader->Finish();
  }
  grpc::Status Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    std::vector<v1::GenerateResponse> responses;
    return Generate(&context, request, &responses);
  }

  HealthCheckResponse::ServingStatus Health(const std::string& name) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(name);
    HealthCheckResponse response;
    const grpc::Status status = health_->Check(&context, request, &response);
    EXPECT_TRUE(status.ok()) << name << ": " << status.error_message();
    return response.status();
  }

  std::string Metrics() {
    return HttpGet(server_->metrics_address(), "/metrics");
  }

  // An answer is right after whatever came before it.
  void ExpectServes() {
    engine_->SetScript(CountToThree);
    const grpc::Status status = Generate(Prompt());
    EXPECT_TRUE(status.ok()) << status.error_message();
    engine_->SetScript(nullptr);
  }

  std::unique_ptr<Server> server_;
  FakeEngine* engine_ = nullptr;  // server_'s
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::InferenceService::Stub> inference_;
  std::unique_ptr<v1::ModelService::Stub> model_stub_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

TEST_F(ServiceTest, StreamsAnAnswer) {
  engine_->SetScript(CountToThree);
  grpc::ClientContext context;
  context.AddMetadata("x-request-id", "my-id");
  v1::GenerateRequest request = Prompt();
  request.set_logprobs(true);
  request.set_top_logprobs(1);
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(&context, request, &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(responses.size(), 4u);
  EXPECT_EQ(responses[0].text(), "one");
  EXPECT_EQ(responses[2].text(), " three");
  ASSERT_EQ(responses[1].tokens_size(), 1);
  EXPECT_EQ(responses[1].tokens(0).token_id(), 1);
  EXPECT_EQ(responses[1].tokens(0).logprob(), -0.5f);
  EXPECT_EQ(responses[1].tokens(0).top_logprobs(0).token_id(), 7);
  EXPECT_EQ(responses[2].finish_reason(), v1::FINISH_REASON_UNSPECIFIED);
  EXPECT_EQ(responses[3].finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(responses[3].stop_string(), "END");
  EXPECT_EQ(responses[3].usage().generated_tokens(), 3);
  EXPECT_GT(responses[3].usage().prompt_tokens(), 0);
  const auto& metadata = context.GetServerInitialMetadata();
  ASSERT_EQ(metadata.count("x-request-id"), 1u);
  EXPECT_EQ(metadata.find("x-request-id")->second, "my-id");
  EXPECT_THAT(Metrics(), HasSubstr("headcount_requests_total{model=\"mail\","
                                   "outcome=\"stop\"} 1\n"));
}

TEST_F(ServiceTest, LeavesOutLogprobsThatNobodyAskedFor) {
  engine_->SetScript(CountToThree);
  grpc::ClientContext context;
  std::vector<v1::GenerateResponse> responses;
  ASSERT_TRUE(Generate(&context, Prompt(), &responses).ok());
  EXPECT_FALSE(responses[0].tokens(0).has_logprob());
}

TEST_F(ServiceTest, ManyStreamsAtOnceEachGetTheirOwn) {
  engine_->SetScript(CountToThree);
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([this] {
      for (int round = 0; round < 20; ++round) {
        grpc::ClientContext context;
        std::vector<v1::GenerateResponse> responses;
        EXPECT_TRUE(Generate(&context, Prompt(), &responses).ok());
        EXPECT_EQ(responses.size(), 4u);
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(ServiceTest, CancelsInTheEngineWhatTheClientCancels) {
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, Prompt());
  engine_->AwaitHeld(1);
  context.TryCancel();
  engine_->AwaitCancels(1);
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ExpectServes();
}

TEST_F(ServiceTest, HandsTheDeadlineToTheEngine) {
  const absl::Time before = absl::Now();
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(before + absl::Seconds(30)));
  const auto reader = inference_->Generate(&context, Prompt());
  const absl::Time deadline = engine_->AwaitHeld(1).first.deadline;
  EXPECT_GT(deadline, before + absl::Seconds(25));
  EXPECT_LT(deadline, before + absl::Seconds(35));
  context.TryCancel();
  engine_->AwaitCancels(1);

  grpc::ClientContext endless;
  const auto other = inference_->Generate(&endless, Prompt());
  engine_->AwaitHeld(1);
  EXPECT_LE(engine_->last_request().deadline, absl::Now() + kMaxDeadline);
  endless.TryCancel();
  engine_->AwaitCancels(2);
}

TEST_F(ServiceTest, EndsAReaderThatNeverReads) {
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, Prompt());
  const std::shared_ptr<RequestSink> sink = engine_->AwaitHeld(1).second;
  // Until the transport and the outbox hold no more.
  while (engine_->num_cancelled() == 0) {
    Output output;
    output.text = std::string(16 << 10, 'x');
    output.tokens.push_back({1, 0.0f, {}});
    sink->OnOutput(std::move(output));
  }
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("slow reader"));
  ExpectServes();
}

TEST_F(ServiceTest, ScoresAContinuation) {
  engine_->SetScript(ScoreDownwards);
  grpc::ClientContext context;
  v1::ScoreRequest request;
  request.set_model("mail");
  request.mutable_prompt_tokens()->add_ids(1);
  for (const int id : {4, 5, 6}) {
    request.mutable_continuation_tokens()->add_ids(id);
  }
  v1::ScoreResponse response;
  const grpc::Status status = inference_->Score(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.tokens_size(), 3);
  EXPECT_EQ(response.tokens(2).token_id(), 6);
  EXPECT_EQ(response.tokens(2).logprob(), -3.0f);
  EXPECT_EQ(response.total_logprob(), -6.0);
  EXPECT_EQ(response.usage().prompt_tokens(), 4);
}

TEST_F(ServiceTest, ClassifiesInputsInOrder) {
  engine_->SetScript(ScoreDownwards);
  for (const char* model : {"mail", "wordy"}) {
    grpc::ClientContext context;
    v1::ClassifyRequest request;
    request.set_model(model);
    for (const char* input : {"a", "b b b", "c c"}) request.add_inputs(input);
    v1::ClassifyResponse response;
    const grpc::Status status =
        inference_->Classify(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(response.results_size(), 3);
    for (const v1::Classification& result : response.results()) {
      EXPECT_EQ(result.label(), "spam");
      float sum = 0;
      for (const auto& label : result.labels()) sum += label.probability();
      EXPECT_NEAR(sum, 1.0f, 1e-6);
    }
    EXPECT_GT(response.results(1).prompt_tokens(),
              response.results(0).prompt_tokens());
  }
}

TEST_F(ServiceTest, CancelsEveryInputOfAClassify) {
  grpc::ClientContext context;
  std::thread cancels([&] {
    engine_->AwaitHeld(5);
    context.TryCancel();
  });
  v1::ClassifyRequest request;
  request.set_model("mail");
  for (int i = 0; i < 5; ++i) request.add_inputs("x");
  v1::ClassifyResponse response;
  EXPECT_EQ(inference_->Classify(&context, request, &response).error_code(),
            grpc::StatusCode::CANCELLED);
  engine_->AwaitCancels(5);
  cancels.join();
  ExpectServes();
}

TEST_F(ServiceTest, OneFailedInputFailsTheClassify) {
  std::thread fails([this] {
    Ending ending = FakeEngine::MakeEnding(EndCause::kError, 3, 0);
    ending.status = absl::InternalError("logits are not numbers");
    engine_->EndNewest(3, std::move(ending));
  });
  grpc::ClientContext context;
  v1::ClassifyRequest request;
  request.set_model("mail");
  for (int i = 0; i < 3; ++i) request.add_inputs("x");
  v1::ClassifyResponse response;
  const grpc::Status status =
      inference_->Classify(&context, request, &response);
  fails.join();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(status.error_message(), "inputs[2]: logits are not numbers");
}

TEST_F(ServiceTest, TokenizesAndBack) {
  grpc::ClientContext context;
  v1::TokenizeRequest request;
  request.set_model("mail");
  request.set_text("Hello <|bos|> world");
  v1::TokenizeResponse ids;
  ASSERT_TRUE(inference_->Tokenize(&context, request, &ids).ok());
  EXPECT_EQ(std::vector<int32_t>(ids.ids().begin(), ids.ids().end()),
            MailroomTokenizer()->Encode(request.text()));
  v1::DetokenizeRequest back;
  back.set_model("mail");
  *back.mutable_ids() = ids.ids();
  grpc::ClientContext back_context;
  v1::DetokenizeResponse text;
  ASSERT_TRUE(inference_->Detokenize(&back_context, back, &text).ok());
  EXPECT_EQ(text.text(), request.text());
}

TEST_F(ServiceTest, ListsModels) {
  grpc::ClientContext context;
  v1::ListModelsResponse list;
  ASSERT_TRUE(model_stub_->ListModels(&context, {}, &list).ok());
  ASSERT_EQ(list.models_size(), 2);
  EXPECT_EQ(list.models(0).name(), "mail");
  EXPECT_EQ(list.models(0).state(), v1::Model::STATE_READY);
  EXPECT_EQ(list.models(0).layers_size(), 0);

  grpc::ClientContext one;
  v1::GetModelRequest request;
  request.set_name("wordy");
  v1::GetModelResponse model;
  ASSERT_TRUE(model_stub_->GetModel(&one, request, &model).ok());
  EXPECT_EQ(model.model().layers_size(), 1);
}

// What the client gets wrong, and the field that the answer must name.
TEST_F(ServiceTest, AnswersBadRequestsWithTheRightCode) {
  struct Case {
    const char* what;
    void (*spoil)(v1::GenerateRequest&);
    grpc::StatusCode code;
    const char* text;
  };
  const std::vector<Case> cases = {
      {"unknown model", [](auto& r) { r.set_model("nobody"); },
       grpc::StatusCode::NOT_FOUND, "'nobody'"},
      {"no model", [](auto& r) { r.clear_model(); },
       grpc::StatusCode::INVALID_ARGUMENT, "model: "},
      {"empty prompt", [](auto& r) { r.set_text(""); },
       grpc::StatusCode::INVALID_ARGUMENT, "text: "},
      {"prompt over the context",
       [](auto& r) { r.mutable_tokens()->mutable_ids()->Resize(33, 1); },
       grpc::StatusCode::INVALID_ARGUMENT, "tokens.ids: 33 tokens"},
      {"NaN temperature",
       [](auto& r) {
         r.mutable_sampling()->set_temperature(
             std::numeric_limits<float>::quiet_NaN());
       },
       grpc::StatusCode::INVALID_ARGUMENT, "sampling.temperature: nan"},
      {"negative temperature",
       [](auto& r) { r.mutable_sampling()->set_temperature(-1); },
       grpc::StatusCode::INVALID_ARGUMENT, "sampling.temperature: -1"},
      {"prompt id outside the vocabulary",
       [](auto& r) { r.mutable_tokens()->add_ids(1 << 20); },
       grpc::StatusCode::INVALID_ARGUMENT, "tokens.ids[0]: 1048576"},
      {"stop id outside the vocabulary",
       [](auto& r) { r.add_stop_token_ids(-1); },
       grpc::StatusCode::INVALID_ARGUMENT, "stop_token_ids[0]: -1"},
      {"3 MB prompt", [](auto& r) { r.set_text(std::string(3 << 20, 'x')); },
       grpc::StatusCode::INVALID_ARGUMENT, "text: 3145728 bytes"},
      {"10 MB message", [](auto& r) { r.set_text(std::string(10 << 20, 'x')); },
       grpc::StatusCode::RESOURCE_EXHAUSTED, "4194304"},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.what);
    v1::GenerateRequest request = Prompt();
    bad.spoil(request);
    const grpc::Status status = Generate(request);
    EXPECT_EQ(status.error_code(), bad.code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(bad.text));
    ExpectServes();
  }
  EXPECT_EQ(engine_->num_submitted(), cases.size());
}

TEST_F(ServiceTest, RefusesCompressedMessages) {
  grpc::ClientContext context;
  context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(&context, Prompt(), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ServiceTest, SaysWhenToComeBackWhenTheQueueIsFull) {
  engine_->Refuse(absl::ResourceExhaustedError("the queue is full"));
  grpc::ClientContext context;
  std::vector<v1::GenerateResponse> responses;
  const grpc::Status status = Generate(&context, Prompt(), &responses);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  // 500 tokens at 250 a second, +-20 %.
  const auto retry = DetailIn<google::rpc::RetryInfo>(status);
  const double delay = static_cast<double>(retry.retry_delay().seconds()) +
                       retry.retry_delay().nanos() / 1e9;
  EXPECT_GE(delay, 1.6);
  EXPECT_LE(delay, 2.4);
  EXPECT_EQ(DetailIn<google::rpc::ErrorInfo>(status).reason(), "QUEUE_FULL");
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"),
            1u);
  engine_->Refuse(absl::OkStatus());
  ExpectServes();
}

TEST_F(ServiceTest, NamesTheFieldOfWhatCanNeverFit) {
  engine_->Refuse(absl::InvalidArgumentError(
      "max_tokens: needs 9 KV blocks, and the whole pool has 4"));
  const grpc::Status status = Generate(Prompt());
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(
      DetailIn<google::rpc::BadRequest>(status).field_violations(0).field(),
      "max_tokens");
  EXPECT_EQ(DetailIn<google::rpc::ErrorInfo>(status).reason(), "KV_EXHAUSTED");
}

TEST_F(ServiceTest, KnowsItsHealthByName) {
  for (const char* name :
       {"", "liveness", "readiness", "headcount.v1.InferenceService",
        "headcount.v1.ModelService", "model/mail", "model/wordy"}) {
    EXPECT_EQ(Health(name), HealthCheckResponse::SERVING) << name;
  }
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("model/nobody");
  HealthCheckResponse response;
  EXPECT_EQ(health_->Check(&context, request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
  grpc::ClientContext list_context;
  grpc::health::v1::HealthListResponse list;
  ASSERT_TRUE(health_->List(&list_context, {}, &list).ok());
  EXPECT_EQ(list.statuses_size(), 7);
}

TEST_F(ServiceTest, DrainsCleanly) {
  grpc::ClientContext watch_context;
  grpc::health::v1::HealthCheckRequest readiness;
  readiness.set_service("readiness");
  const auto watch = health_->Watch(&watch_context, readiness);
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);

  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, Prompt());
  engine_->AwaitHeld(1);
  server_->Drain();

  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(DetailIn<google::rpc::ErrorInfo>(status).reason(), "DRAINING");
}

TEST_F(ServiceTest, WatchTellsOfNamesThatItDoesNotKnow) {
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("nobody");
  const auto watch = health_->Watch(&context, request);
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context.TryCancel();
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServiceTest, EndsAtOnceWithoutADrain) {
  grpc::ClientContext context;
  const auto reader = inference_->Generate(&context, Prompt());
  engine_->AwaitHeld(1);
  server_.reset();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServiceTest, SaysThatAPortIsInUse) {
  for (const bool metrics : {false, true}) {
    config::v1::ServerConfig config = LocalConfig();
    const std::string& taken =
        metrics ? server_->metrics_address() : server_->grpc_address();
    metrics ? config.set_metrics_listen(taken) : config.set_listen(taken);
    std::vector<ServedModel> models;
    models.push_back(MakeServedModel("mail", 0));
    absl::StatusOr<std::unique_ptr<Server>> second = Server::CreateAround(
        config, std::make_unique<FakeEngine>(1), std::move(models));
    ASSERT_TRUE(second.ok());
    const absl::Status status = (*second)->Start();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_TRUE(absl::StartsWith(
        status.message(), absl::StrCat(metrics ? "metrics_listen" : "listen",
                                       ": ", taken, " is in use")))
        << status;
  }
  ExpectServes();
}

TEST_F(ServiceTest, ServesMetricsAndNothingElse) {
  ExpectServes();
  const std::string metrics = Metrics();
  EXPECT_THAT(metrics, HasSubstr("200 OK"));
  for (const char* name :
       {"headcount_build_info{", "process_resident_memory_bytes ",
        "headcount_kv_pool_bytes{", "grpc_server_handled_total{",
        "headcount_time_to_first_token_seconds_bucket{"}) {
    EXPECT_THAT(metrics, HasSubstr(name));
  }
  EXPECT_THAT(HttpGet(server_->metrics_address(), "/"), HasSubstr("404"));
}

TEST_F(ServiceTest, ServesMetricsThatPassThePrometheusLinter) {
  if (std::system("command -v promtool >/dev/null") != 0) {
    GTEST_SKIP() << "promtool is not installed";
  }
  ExpectServes();
  v1::GenerateRequest bad = Prompt();
  bad.set_max_tokens(-1);
  EXPECT_FALSE(Generate(bad).ok());
  Metrics();  // the port counts its own scrapes from the second one on
  const std::string response = Metrics();
  const std::string metrics = response.substr(response.find("\r\n\r\n") + 4);
  FILE* linter = popen("promtool check metrics", "w");
  ASSERT_NE(linter, nullptr);
  std::fwrite(metrics.data(), 1, metrics.size(), linter);
  EXPECT_EQ(pclose(linter), 0);
}

}  // namespace
}  // namespace headcount
