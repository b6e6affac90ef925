#include "cli/gpus.h"

#include <sys/sysinfo.h>

#include <algorithm>

namespace headcount {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr double kGb = 1e9;
constexpr double kTflop = 1e12;

}  // namespace

// NVIDIA's datasheets and whitepapers: memory as it is sold (drivers show up to
// 4 % less), bandwidth of memory, and tensor cores' bf16 with sums in float32
// and without sparsity (where a sheet has only the figure with sparsity, half
// of it; T4 has fp16 instead).
//   B200         DGX B200 datasheet, an eighth of it
//   H200, H100   their datasheets (SXM and PCIe)
//   A100, A10, L4, L40S, T4   their datasheets
//   RTX 4090, RTX 3090   Ada and Ampere GA102 architecture whitepapers
const std::vector<Device>& KnownGpus() {
  static const auto* const gpus = new std::vector<Device>{
      {"b200", 180 * kGiB, 8000 * kGb, 2250 * kTflop},
      {"h200", 141 * kGiB, 4800 * kGb, 989 * kTflop},
      {"h100", 80 * kGiB, 3350 * kGb, 989 * kTflop},
      {"h100-pcie", 80 * kGiB, 2000 * kGb, 756 * kTflop},
      {"a100-80", 80 * kGiB, 2039 * kGb, 312 * kTflop},
      {"a100-40", 40 * kGiB, 1555 * kGb, 312 * kTflop},
      {"l40s", 48 * kGiB, 864 * kGb, 362 * kTflop},
      {"a10", 24 * kGiB, 600 * kGb, 125 * kTflop},
      {"l4", 24 * kGiB, 300 * kGb, 121 * kTflop},
      {"rtx4090", 24 * kGiB, 1008 * kGb, 165 * kTflop},
      {"rtx3090", 24 * kGiB, 936 * kGb, 71 * kTflop},
      {"t4", 16 * kGiB, 320 * kGb, 65 * kTflop},
  };
  return *gpus;
}

const Device* FindGpu(const std::string& name) {
  const std::vector<Device>& gpus = KnownGpus();
  const auto found =
      std::find_if(gpus.begin(), gpus.end(),
                   [&](const Device& gpu) { return gpu.name == name; });
  return found == gpus.end() ? nullptr : &*found;
}

Device ThisCpu() {
  struct sysinfo info = {};
  Device cpu{.name = "this CPU"};
  if (sysinfo(&info) == 0) {
    cpu.memory_bytes = static_cast<int64_t>(info.totalram) * info.mem_unit;
  }
  return cpu;
}

}  // namespace headcount
