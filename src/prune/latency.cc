#include "prune/latency.h"

#include <cmath>
#include <cstddef>

#include "base/check.h"

namespace headcount {

LatencyRatio CompareLatency(const std::vector<double>& dense,
                            const std::vector<double>& pruned, uint64_t seed) {
  CHECK(!dense.empty() && dense.size() == pruned.size());
  std::vector<double> logarithms;
  for (size_t i = 0; i < dense.size(); ++i) {
    CHECK(dense[i] > 0 && pruned[i] > 0);
    logarithms.push_back(std::log(pruned[i] / dense[i]));
  }
  const Bounds bounds = BootstrapMean(logarithms, seed);
  return {.texts = static_cast<int64_t>(dense.size()),
          .ratio = std::exp(MeanOf(logarithms)),
          .ratio95 = {std::exp(bounds.low), std::exp(bounds.high)},
          .dense_p50 = QuantileOf(dense, 0.5),
          .pruned_p50 = QuantileOf(pruned, 0.5)};
}

}  // namespace headcount
