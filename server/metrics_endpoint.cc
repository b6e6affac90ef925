#include "server/metrics_endpoint.h"

#include <atomic>
#include <exception>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "prometheus/exposer.h"

namespace headcount {

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Open(
    const ListenAddress& address,
    std::vector<std::shared_ptr<prometheus::Collectable>> collectables) {
  absl::StatusOr<ListenAddress> numeric = CheckListenAddress(address);
  if (!numeric.ok()) return numeric.status();
  std::unique_ptr<MetricsEndpoint> endpoint(new MetricsEndpoint());
  endpoint->collectables_ = std::move(collectables);
  try {
    endpoint->exposer_ =
        std::make_unique<prometheus::Exposer>(numeric->ToString());
    for (const auto& collectable : endpoint->collectables_) {
      endpoint->exposer_->RegisterCollectable(collectable);
    }
  } catch (const std::exception&) {
    return absl::FailedPreconditionError(
        absl::StrCat(address.ToString(), " cannot be served"));
  }
  endpoint->address_ = address;
  endpoint->address_.port =
      static_cast<uint16_t>(endpoint->exposer_->GetListeningPorts().at(0));
  return endpoint;
}

// CivetWeb sees that it is to stop when somebody comes, or after two seconds.
MetricsEndpoint::~MetricsEndpoint() {
  std::atomic<bool> closed{false};
  std::thread knocks([this, &closed] {
    while (!closed) {
      Knock(address_);
      absl::SleepFor(absl::Milliseconds(5));
    }
  });
  exposer_.reset();
  closed = true;
  knocks.join();
}

}  // namespace headcount
