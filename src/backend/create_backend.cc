#include "backend/create_backend.h"

#include <charconv>
#include <utility>

#include "backend/cpu/cpu_backend.h"
#if defined(HEADCOUNT_CUDA)
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device.h"
#endif

namespace headcount {
namespace {

#if defined(HEADCOUNT_CUDA)
absl::StatusOr<std::unique_ptr<Backend>> CreateCuda(int ordinal) {
  absl::StatusOr<std::unique_ptr<cuda::Device>> device =
      cuda::OpenDevice(ordinal);
  if (!device.ok()) return device.status();
  return cuda::CreateCudaBackend(*std::move(device));
}
#else
absl::StatusOr<std::unique_ptr<Backend>> CreateCuda(int /*ordinal*/) {
  return absl::FailedPreconditionError(
      "this build knows no CUDA: build with -DHEADCOUNT_CUDA=ON where there is "
      "a CUDA toolkit, or serve with --device cpu");
}
#endif

}  // namespace

std::optional<DeviceName> ParseDeviceName(std::string_view text) {
  if (text == "auto") return DeviceName{};
  if (text == "cpu") return DeviceName{.kind = DeviceName::Kind::kCpu};
  DeviceName name{.kind = DeviceName::Kind::kCuda};
  constexpr std::string_view kCuda = "cuda";
  if (text == kCuda) return name;
  if (text.substr(0, kCuda.size() + 1) != "cuda:") return std::nullopt;
  text.remove_prefix(kCuda.size() + 1);
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), name.ordinal);
  if (error != std::errc() || end != text.data() + text.size() ||
      name.ordinal < 0) {
    return std::nullopt;
  }
  return name;
}

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const DeviceName& device,
                                                       int threads) {
  if (device.kind != DeviceName::Kind::kCpu) {
    absl::StatusOr<std::unique_ptr<Backend>> cuda = CreateCuda(device.ordinal);
    if (cuda.ok() || device.kind == DeviceName::Kind::kCuda) return cuda;
  }
  return CreateCpuBackend({.threads = threads});
}

}  // namespace headcount
