// The rows of a Sample call as the device takes them.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/sampling_kernels.h"
#include "backend/sampling.h"

namespace headcount::cuda {

// Host copies of the arrays that SampleParams points to; reused between calls.
struct SampleBatch {
  std::vector<DeviceSampleRow> rows;
  std::vector<TokenUse> uses;
  std::vector<TokenBias> biases;
  std::vector<int32_t> allowed;
  std::vector<int32_t> banned;
};

// Whether the device draws all that `row` asks for.
bool IsDrawnOnDevice(const SampleRow& row);

// CHECKs that tokens are of the vocabulary.
void AddRow(const SampleRow& row, int64_t vocab, SampleBatch* batch);

void Clear(SampleBatch* batch);

}  // namespace headcount::cuda
