#include "server/device_watch.h"

#include <atomic>
#include <string>

#include "absl/time/clock.h"
#include "base/clock.h"
#include "fake_engine.h"
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

}  // namespace
}  // namespace headcount
