#include "server/device_watch.h"

#include <atomic>
#include <memory>
#include <string>

#include "absl/time/clock.h"
#include "base/clock.h"
#include "fake_engine.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/limits.h"
#include "server/metrics.h"
#include "server/model_table.h"

namespace headcount {
namespace {

TEST(DeviceWatchTest, AnErrorThatStaysBeginsTheDrainOnce) {
  FakeEngine engine(0);
  const SystemClock clock;
  const Log log(LogFormat::kText, &clock);
  const ModelTable models({}, {}, {});
  Metrics metrics(models);
  HealthService health({}, {}, &metrics);
  std::atomic<ServerState> state{ServerState::kServing};
  int drains = 0;
  DeviceWatch watch({.engine = &engine,
                     .health = &health,
                     .state = &state,
                     .log = &log,
                     .begin_drain = [&drains] { ++drains; }});
  watch.Look(absl::Now());
  EXPECT_TRUE(watch.status().ok());
  engine.Fail(absl::UnavailableError("cuda:0: it is broken"));
  EXPECT_EQ(watch.status(), absl::UnavailableError("cuda:0: it is broken"));
  EXPECT_EQ(drains, 1);
  // It does not come back when the step has ended.
  engine.SetStepBegan(absl::Now() - 2 * kStepHangs);
  watch.Look(absl::Now());
  EXPECT_EQ(drains, 1);
}

// A look that has begun before the drain may end after it.
TEST(DeviceWatchTest, WhatHasRetiredIsNeverReadyAgain) {
  const ModelTable models({}, {}, {});
  Metrics metrics(models);
  HealthService health({}, {}, &metrics);
  grpc::ServerBuilder builder;
  builder.RegisterService(&health);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const auto stub =
      grpc::health::v1::Health::NewStub(server->InProcessChannel({}));
  const auto ready = [&] {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(stub->Check(&context, {}, &response).ok());
    return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
  };
  health.SetServing(true);
  EXPECT_TRUE(ready());
  health.Retire();
  EXPECT_FALSE(ready());
  health.SetServing(true);
  EXPECT_FALSE(ready());
  server->Shutdown();
}

}  // namespace
}  // namespace headcount
