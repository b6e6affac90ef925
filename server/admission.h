// The door of the engine: who is refused, and when to come back.
#pragma once

#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/engine.h"
#include "engine/request.h"

namespace headcount {

// Queued tokens over recent tokens per second, between kMinRetryDelay and
// kMaxRetryDelay; a second where no rate is known. Without jitter.
absl::Duration QueueDelay(const EngineSnapshot& snapshot);

// Thread-safe. The engine outlives it.
class Admission {
 public:
  explicit Admission(Engine* engine) : engine_(engine) {}

  // Hands the request to the engine. Errors carry reason and, where a later
  // try can succeed, the delay; `field` is what a request that can never fit
  // names.
  absl::StatusOr<RequestId> Submit(Request request,
                                   std::shared_ptr<RequestSink> sink,
                                   absl::string_view field);
  void Cancel(RequestId id) { engine_->Cancel(id); }

  // OK until Close.
  absl::Status CheckOpen() const;
  // From now on everything is refused with UNAVAILABLE.
  void Close() { closed_ = true; }
  bool closed() const { return closed_; }

  // An ending that the engine reported, as clients see it.
  absl::Status Described(const absl::Status& status) const;

 private:
  Engine* const engine_;
  std::atomic<bool> closed_{false};
};

}  // namespace headcount
