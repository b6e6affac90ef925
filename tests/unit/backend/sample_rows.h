// Short ways to draw from made-up logits.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/sampling.h"
#include "tests/unit/backend/random_floats.h"

namespace headcount {

inline SampleResult Sample(const std::vector<float>& logits,
                           const SampleRow& row) {
  SampleScratch scratch;
  return SampleOne(logits, row, &scratch);
}

inline SampleRow Drawing(float temperature) {
  SampleRow row;
  row.temperature = temperature;
  return row;
}

inline std::vector<float> RandomLogits(int count, uint32_t seed) {
  TestRandom random(seed);
  std::vector<float> logits = RandomFloats(random, count);
  for (float& logit : logits) logit *= 4;
  return logits;
}

}  // namespace headcount
