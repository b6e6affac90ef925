// The HTTP port that answers GET /metrics in Prometheus text.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "prometheus/collectable.h"
#include "server/listen_address.h"

namespace prometheus {
class Exposer;
}

namespace headcount {

// Serves until destroyed.
class MetricsEndpoint {
 public:
  // Errors as CheckListenAddress.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Open(
      const ListenAddress& address,
      std::vector<std::shared_ptr<prometheus::Collectable>> collectables);
  ~MetricsEndpoint();

  // With the real port where 0 was asked for.
  const ListenAddress& address() const { return address_; }

 private:
  MetricsEndpoint() = default;

  ListenAddress address_;
  std::vector<std::shared_ptr<prometheus::Collectable>> collectables_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace headcount
