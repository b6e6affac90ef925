// What the emulator knows of its launches.
#pragma once

#include "tests/simt/simt.h"

namespace headcount::gpu {

// Summed over the launches since the last call.
simt::Counters TakeCounters();

}  // namespace headcount::gpu
