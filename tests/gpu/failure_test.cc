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

}  // namespace
}  // namespace headcount::gpu
