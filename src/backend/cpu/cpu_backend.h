// The default backend, and the reference of the others: SIMD through Highway
// with run-time dispatch, a persistent thread pool, weights read once a step.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace headcount {

struct CpuBackendOptions {
  int threads = 0;  // 0: one for each core this process may use
};

std::unique_ptr<Backend> CreateCpuBackend(const CpuBackendOptions& options);

}  // namespace headcount
