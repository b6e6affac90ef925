// A device that breaks, as an engine would meet it.
#include <cstdlib>
#include <memory>

#include "absl/status/status.h"
#include "backend/cuda/cuda_backend.h"
#include "gtest/gtest.h"
#include "tests/golden/model_golden.h"
#include "tests/gpu/device_simt.h"
#include "tests/unit/model/model_runner.h"

namespace headcount::gpu {
namespace {

ModelRunner RunnerOn(Backend* backend) {
  for (const GoldenModel& model : ReadGoldenModels()) {
    if (model.name == "mailroom") {
      return ModelRunner(backend, {.model = {.path = model.path}});
    }
  }
  ADD_FAILURE() << "no golden model";
  std::abort();
}

TEST(FailureTest, AStepOnABrokenDeviceEndsAndSaysSo) {
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(OpenFailingDevice(/*launches=*/25));
  ModelRunner runner = RunnerOn(backend.get());
  EXPECT_TRUE(backend->status().ok());
  runner.RunAlone({1, 2, 3}, 1);
  EXPECT_TRUE(absl::IsUnavailable(backend->status())) << backend->status();
  runner.RunAlone({1, 2, 3}, 1);  // and once more, without an end
}

// Steps then ask for memory that the device has none of any more.
TEST(FailureTest, SoDoesALongerStepAfterIt) {
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(OpenFailingDevice(/*launches=*/25));
  ModelRunner runner = RunnerOn(backend.get());
  runner.RunAlone({1, 2, 3}, 1);
  ASSERT_TRUE(absl::IsUnavailable(backend->status())) << backend->status();
  runner.RunAlone(std::vector<int32_t>(200, 1), 200);
  EXPECT_TRUE(absl::IsUnavailable(backend->status()));
}

TEST(FailureTest, SoDoesAStepThatBreaksInsideOfAGraph) {
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(OpenFailingDevice(/*launches=*/2000));
  ModelRunner runner = RunnerOn(backend.get());
  int64_t replayed = 0;
  while (backend->status().ok()) {
    replayed = backend->step_graphs().replayed;
    runner.RunAlone({1}, 1);
  }
  EXPECT_EQ(backend->step_graphs().replayed, replayed + 1);
  EXPECT_TRUE(absl::IsUnavailable(backend->status())) << backend->status();
  runner.RunAlone({1}, 1);
}

TEST(FailureTest, AReservationThatDoesNotFitLosesNothing) {
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(OpenSmallDevice(/*bytes=*/int64_t{64} << 20));
  ModelRunner runner = RunnerOn(backend.get());
  const std::vector<LogitsRow> before = runner.RunAlone({1, 2, 3}, 3);
  constexpr int64_t kLeft = 4096;
  const absl::StatusOr<std::unique_ptr<Buffer>> others =
      backend->Allocate(backend->FreeBytes() - kLeft);
  ASSERT_TRUE(others.ok()) << others.status();
  const absl::Status status = runner.ReserveSteps(/*max_context=*/4096);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(runner.RunAlone({1, 2, 3}, 3), before);
}

}  // namespace
}  // namespace headcount::gpu
