// The backend of NVIDIA GPUs.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cuda/device.h"

namespace headcount::cuda {

// What steps need beside weights, pages and workspaces is reserved by
// ReserveSteps, but for their tables, which grow within the first steps; later
// ones allocate nothing.
//
// Unlike the CPU's, a row's attention may differ in the last bits with its
// company: long sequences are cut into parts so that all blocks of a grid have
// as much to do, and sums of parts are joined. Products do not differ.
//
// `threads` of the host pack weights; 0: one for each core.
std::unique_ptr<Backend> CreateCudaBackend(std::unique_ptr<Device> device,
                                           int threads = 0);

}  // namespace headcount::cuda
