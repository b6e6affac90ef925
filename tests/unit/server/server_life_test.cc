// The server besides its answers: health, drain, ports and metrics.
#include "service_fixture.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

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

// Blocks until the stream tells of this status.
void AwaitHealth(grpc::ClientReader<HealthCheckResponse>* watch,
                 HealthCheckResponse::ServingStatus status) {
  HealthCheckResponse response;
  while (response.status() != status) ASSERT_TRUE(watch->Read(&response));
}

TEST_F(ServiceTest, IsNotReadyWhileAStepHangs) {
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest readiness;
  readiness.set_service("readiness");
  const auto watch = health_->Watch(&context, readiness);
  AwaitHealth(watch.get(), HealthCheckResponse::SERVING);
  engine_->SetStepBegan(absl::Now() - kStepHangs - absl::Seconds(1));
  AwaitHealth(watch.get(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("liveness"), HealthCheckResponse::SERVING);
  engine_->SetStepBegan(absl::InfiniteFuture());
  AwaitHealth(watch.get(), HealthCheckResponse::SERVING);
  EXPECT_TRUE(server_->device_status().ok());
  context.TryCancel();
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
