// Devices to plan for: how much they hold, and how fast they are at best.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace headcount {

struct Device {
  std::string name;
  int64_t memory_bytes = 0;
  double bytes_per_second = 0;  // of its memory, at best; 0: unknown
  double flops = 0;             // dense bf16, a second, at best; 0: unknown
};

// From the vendor's datasheets.
const std::vector<Device>& KnownGpus();

// Of that name in KnownGpus, or null.
const Device* FindGpu(const std::string& name);

// This machine, whose memory is known and speed is not.
Device ThisCpu();

}  // namespace headcount
