// The standard process_* metrics, from /proc/self.
#pragma once

#include <vector>

#include "prometheus/collectable.h"

namespace headcount {

// Thread-safe. What the system does not tell is left out.
class ProcessCollector final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace headcount
