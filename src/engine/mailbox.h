// Where other threads meet the step thread: what they ask for lies here until
// the next step takes it, and so do the counts that they may see. The engine's
// only lock; nobody computes or calls out while it is held.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "engine/engine.h"
#include "engine/generation.h"
#include "engine/request.h"
#include "engine/token_rate.h"

namespace headcount {

// What may still begin and go on; only ever moves forward.
enum class Phase {
  kServing,
  kDraining,  // nothing begins
  kEnding,    // nothing goes on
  kStopped,   // and the step thread leaves
};

struct Arrival {
  RequestId id = 0;
  Request request;
  std::unique_ptr<Generation> generation;
};

struct Mail {
  std::vector<Arrival> arrivals;
  std::vector<RequestId> cancels;
  Phase phase = Phase::kServing;
};

// What may wait, over all models.
struct QueueLimits {
  int32_t requests = 0;
  int64_t tokens = 0;
  int64_t bytes = 0;
};

// Thread-safe.
class Mailbox {
 public:
  // `counts`: those of the start. The clock outlives the mailbox.
  Mailbox(const QueueLimits& limits, const EngineSnapshot& counts,
          const Clock* clock);

  // ResourceExhausted when the queue is full, though an empty queue takes
  // anything; Unavailable when not serving.
  absl::StatusOr<RequestId> Submit(Request request,
                                   std::unique_ptr<Generation> generation);
  void Cancel(RequestId id);
  // Moves on to `phase` if it lies ahead.
  void Advance(Phase phase);
  // Returns when the step thread has nothing to do, or at `deadline`.
  void AwaitQuiet(absl::Time deadline);
  // What is submitted counts as waiting at once.
  EngineSnapshot Snapshot() const;

  // For the step thread.

  // From Open to Close it looks at the mail.
  void Open();
  void Close();
  // Sleeps until there is mail, or until `deadline`. False: time to leave.
  bool AwaitMail(absl::Time deadline);
  Mail Take();
  void Publish(const EngineSnapshot& counts, const TokenRate& rate);

 private:
  bool HasMail() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return phase_changed_ || !mail_.arrivals.empty() || !mail_.cancels.empty();
  }
  bool Quiet() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !open_ || (sleeping_ && !HasMail());
  }
  absl::Status CheckQueue(const Request& request) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountArrival(const Request& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const QueueLimits limits_;
  const Clock* const clock_;

  mutable Mutex mutex_;
  CondVar has_mail_;
  CondVar quiet_;
  Mail mail_ ABSL_GUARDED_BY(mutex_);
  bool phase_changed_ ABSL_GUARDED_BY(mutex_) = false;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  bool sleeping_ ABSL_GUARDED_BY(mutex_) = false;
  RequestId last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  EngineSnapshot counts_ ABSL_GUARDED_BY(mutex_);  // arrivals included
  TokenRate rate_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace headcount
