// A server on free ports around an engine that does what the test says, and
// the stubs to ask it over a real channel.
#pragma once

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

using grpc::health::v1::HealthCheckResponse;

inline config::v1::ServerConfig LocalConfig() {
  config::v1::ServerConfig config = DefaultServerConfig();
  config.set_listen("127.0.0.1:0");
  config.set_metrics_listen("127.0.0.1:0");
  config.mutable_drain()->set_grace("0s");
  config.mutable_drain()->set_deadline("1s");
  return config;
}

// "one", "two", ... one token each, then a stop.
inline void CountToThree(const Request& request,
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

// GET of a path of the metrics port; headers and body.
inline std::string HttpGet(const std::string& address,
                           const std::string& path) {
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

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() : ServiceTest(LocalConfig()) {}
  explicit ServiceTest(const config::v1::ServerConfig& config,
                       std::vector<FailedModel> failed = {}) {
    auto engine = std::make_unique<FakeEngine>(2);
    engine_ = engine.get();
    std::vector<ServedModel> models;
    models.push_back(MakeServedModel("mail", 0, {"spam", "ham"}));
    models.push_back(MakeServedModel("wordy", 1, {"spam", "not spam"}));
    absl::StatusOr<std::unique_ptr<Server>> server = Server::CreateAround(
        config, std::move(engine), std::move(models), std::move(failed));
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

}  // namespace headcount
