// What the emulator knows of its launches.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/cuda/device.h"
#include "tests/simt/simt.h"

namespace headcount::gpu {

// Summed over the launches since the last call.
simt::Counters TakeCounters();

// Breaks with the launch after so many, and computes nothing. What is broken
// has no memory to give.
std::unique_ptr<cuda::Device> OpenFailingDevice(int64_t launches);

// With memory for so many bytes.
std::unique_ptr<cuda::Device> OpenSmallDevice(int64_t bytes);

}  // namespace headcount::gpu
