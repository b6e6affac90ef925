#include <utility>

#include "tests/gpu/device.h"

namespace headcount::gpu {

std::unique_ptr<cuda::Device> OpenTestDevice(bool /*launches*/) {
  absl::StatusOr<std::unique_ptr<cuda::Device>> device = cuda::OpenDevice(0);
  CHECK(device.ok()) << device.status();
  return *std::move(device);
}

int Workers() { return 2 * TheDevice().multiprocessors(); }

bool IsEmulator() { return false; }

int64_t TestAllocations() { return 0; }

}  // namespace headcount::gpu
