// The backend of NVIDIA GPUs.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "backend/cuda/device.h"

namespace headcount::cuda {

// Everything but the device's memory for weights, pages and workspaces, which
// comes with them, is reserved within the first steps; later ones allocate
// nothing.
//
// Unlike the CPU's, a row's attention may differ in the last bits with its
// company: long sequences are cut into parts so that all blocks of a grid have
// as much to do, and sums of parts are joined. Products do not differ.
std::unique_ptr<Backend> CreateCudaBackend(std::unique_ptr<Device> device);

}  // namespace headcount::cuda
