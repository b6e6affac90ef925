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

// That of this build.
OpenCuda OpenCudaHere([[maybe_unused]] int threads) {
#if defined(HEADCOUNT_CUDA)
  return [threads](int ordinal) -> absl::StatusOr<std::unique_ptr<Backend>> {
    absl::StatusOr<std::unique_ptr<cuda::Device>> device =
        cuda::OpenDevice(ordinal);
    if (!device.ok()) return device.status();
    return cuda::CreateCudaBackend(*std::move(device), threads);
  };
#else
  return nullptr;
#endif
}

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
                                                       int threads,
                                                       absl::Status* no_gpu) {
  return ChooseBackend(device, threads, OpenCudaHere(threads), no_gpu);
}

absl::StatusOr<std::unique_ptr<Backend>> ChooseBackend(
    const DeviceName& device, int threads, const OpenCuda& open_cuda,
    absl::Status* no_gpu) {
  if (no_gpu != nullptr) *no_gpu = absl::OkStatus();
  const bool must = device.kind == DeviceName::Kind::kCuda;
  if (!open_cuda && must) {
    return absl::FailedPreconditionError(
        "this build knows no CUDA: build with -DHEADCOUNT_CUDA=ON where there "
        "is a CUDA toolkit, or serve with --device cpu");
  }
  if (open_cuda && device.kind != DeviceName::Kind::kCpu) {
    absl::StatusOr<std::unique_ptr<Backend>> cuda = open_cuda(device.ordinal);
    if (cuda.ok() || must) return cuda;
    if (no_gpu != nullptr) *no_gpu = cuda.status();
  }
  return CreateCpuBackend({.threads = threads});
}

}  // namespace headcount
