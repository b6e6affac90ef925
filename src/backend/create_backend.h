// The backend of a device that is named in a configuration: the one place that
// knows which there are.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "backend/backend.h"

namespace headcount {

struct DeviceName {
  enum class Kind : uint8_t { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  int ordinal = 0;  // of kCuda
};

// "auto", "cpu", "cuda", "cuda:1"; else nothing.
std::optional<DeviceName> ParseDeviceName(std::string_view text);

// kAuto is the first CUDA device where there is one that this build can use,
// else the CPU; `no_gpu` is then why, and OK in a build that knows no CUDA.
// `threads` of the host compute, or pack weights for a GPU; 0: one for each
// core. FailedPrecondition, with what to do about it, when there is no such
// device or this build knows no CUDA.
absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(
    const DeviceName& device, int threads, absl::Status* no_gpu = nullptr);

// How a build opens a CUDA device by its number; empty: it knows none.
using OpenCuda =
    std::function<absl::StatusOr<std::unique_ptr<Backend>>(int ordinal)>;

// The choice that CreateBackend makes.
absl::StatusOr<std::unique_ptr<Backend>> ChooseBackend(
    const DeviceName& device, int threads, const OpenCuda& open_cuda,
    absl::Status* no_gpu);

}  // namespace headcount
