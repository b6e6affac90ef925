// How much sooner a pruned model answers, from answers of both to the same
// texts.
#pragma once

#include <cstdint>
#include <vector>

#include "prune/paired_statistics.h"

namespace headcount {

// Times of the pruned model over those of the dense one, text by text: how the
// texts differ in length is in neither, and a machine that is busy slows both.
struct LatencyRatio {
  int64_t texts = 0;     // 0: not measured
  double ratio = 1;      // geometric mean
  Bounds ratio95 = {};   // paired bootstrap, 95 %
  double dense_p50 = 0;  // milliseconds
  double pruned_p50 = 0;
};

// [text] in milliseconds, over 0, and as many of both; at least one.
LatencyRatio CompareLatency(const std::vector<double>& dense,
                            const std::vector<double>& pruned, uint64_t seed);

}  // namespace headcount
