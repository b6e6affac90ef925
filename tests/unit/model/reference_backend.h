// A backend that is nothing but the definitions of backend.h: plain loops over
// float32 weights, sums in double precision, attention straight from the block
// tables without a plan. Slow, and independent of the CPU backend, which is
// compared with it.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace headcount {

// Fresh buffers are full of NaN, so that reading what was never written shows.
std::unique_ptr<Backend> CreateReferenceBackend();

}  // namespace headcount
