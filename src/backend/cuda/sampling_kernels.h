// Drawing tokens on the device: the same ones that SampleOne (sampling.h) draws
// from the same logits. Log-probabilities may differ from the host's in their
// last bits.
//
// Rows that ask for more than a token and its log-probability (top_logprobs,
// scored, kept, reference) are the host's: IsDrawnOnDevice in sample_batch.h.
#pragma once

#include <cstdint>

#include "backend/cuda/kernel.h"
#include "backend/sampling_math.h"

namespace headcount::cuda {

// [begin, begin + count) of an array that all rows share.
struct SampleSpan {
  int32_t begin = 0;
  int32_t count = 0;
};

// SampleRow, field by field.
struct DeviceSampleRow {
  uint64_t seed = 0;
  uint64_t position = 0;
  int32_t logits_row = 0;
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  float temperature = 0.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  int32_t top_k = 0;
  SampleSpan uses;
  SampleSpan biases;
  SampleSpan allowed;
  SampleSpan banned;
};

struct DeviceSampleResult {
  int32_t token = -1;  // -1: none may be drawn
  float logprob = 0;
  int32_t finite = 1;  // 0: a logit was NaN or +inf, or all were -inf
};

// All pointers are device addresses. Grid: a block for each row.
struct SampleParams {
  const float* logits = nullptr;          // [*, vocab]
  const DeviceSampleRow* rows = nullptr;  // [grid]
  const TokenUse* uses = nullptr;
  const TokenBias* biases = nullptr;
  const int32_t* allowed = nullptr;
  const int32_t* banned = nullptr;
  float* scratch = nullptr;  // [grid, vocab], contents of no matter
  DeviceSampleResult* results = nullptr;  // [grid]
  int32_t vocab = 0;
};
Kernel<SampleParams> FindSampleKernel();

}  // namespace headcount::cuda
