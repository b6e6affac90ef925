// A device that breaks, as an engine would meet it.
#include "absl/status/status.h"
#include "backend/cuda/cuda_backend.h"
#include "gtest/gtest.h"
#include "tests/golden/model_golden.h"
#include "tests/gpu/device_simt.h"
#include "tests/unit/model/model_runner.h"

namespace headcount::gpu {
namespace {

TEST(FailureTest, AStepOnABrokenDeviceEndsAndSaysSo) {
  const std::unique_ptr<Backend> backend =
      cuda::CreateCudaBackend(OpenFailingDevice(/*launches=*/25));
  for (const GoldenModel& model : ReadGoldenModels()) {
    if (model.name != "mailroom") continue;
    ModelRunner runner(backend.get(), {.model = {.path = model.path}});
    EXPECT_TRUE(backend->status().ok());
    runner.RunAlone({1, 2, 3}, 1);
    EXPECT_TRUE(absl::IsUnavailable(backend->status())) << backend->status();
    runner.RunAlone({1, 2, 3}, 1);  // and once more, without an end
    return;
  }
  FAIL() << "no golden model";
}

}  // namespace
}  // namespace headcount::gpu
