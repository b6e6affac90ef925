// The default backend, and the reference of the others: SIMD through Highway
// with run-time dispatch and the tiles of AMX, a persistent thread pool,
// weights read once a step.
#pragma once

#include <memory>

#include "backend/backend.h"

namespace headcount {

struct CpuBackendOptions {
  int threads = 0;  // 0: one for each core this process may use
  bool amx = true;  // where the CPU has it; false to compare
};

std::unique_ptr<Backend> CreateCpuBackend(const CpuBackendOptions& options);

}  // namespace headcount
