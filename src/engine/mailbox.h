// Where other threads meet the step thread: what they ask for lies here until
// the next step takes it, and so do the counts that they may see. The engine's
// only lock; nobody computes or calls out while it is held.
#pragma once

#include <cstdint>
#include <functional>
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
#include "engine/sequence_limits.h"
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

// Something that the step thread is to do between two steps.
struct Errand {
  std::function<void()> run;
  bool done = false;  // under the mailbox's lock
};

// A model as submissions see it.
struct OpenModel {
  std::shared_ptr<const EngineModel> model;  // null: none
  SequenceLimits limits;
};

struct Mail {
  std::vector<Errand*> errands;  // to be reported to Mailbox::Done
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
  // The clock outlives the mailbox.
  explicit Mailbox(const Clock* clock) : clock_(clock) {}

  // model.model is null where nothing is open.
  OpenModel Find(int index) const;
  // ResourceExhausted when the queue is full, though an empty queue takes
  // anything; Unavailable when not serving, or when request.model is not
  // `model` any more.
  absl::StatusOr<RequestId> Submit(Request request, const EngineModel* model,
                                   std::unique_ptr<Generation> generation);
  void Cancel(RequestId id);
  // Moves on to `phase` if it lies ahead.
  void Advance(Phase phase);
  // The step thread runs it between two steps; this returns then. False, and
  // nothing was done, when there is no step thread.
  bool Do(std::function<void()> run);
  // From now on nothing is submitted to it.
  void CloseModel(int index);
  // Returns when the model has no request, or at `deadline`.
  void AwaitIdle(int index, absl::Time deadline);
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
  void Done(const std::vector<Errand*>& errands);
  void SetModels(std::vector<OpenModel> models, const QueueLimits& limits);
  // Until Publish, the snapshot says that a step runs.
  void BeginStep(absl::Time now);
  void Publish(const EngineSnapshot& counts, const TokenRate& rate);

 private:
  bool HasMail() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return phase_changed_ || !mail_.arrivals.empty() ||
           !mail_.cancels.empty() || !mail_.errands.empty();
  }
  bool Quiet() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !open_ || (sleeping_ && !HasMail());
  }
  absl::Status CheckQueue(const Request& request) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountArrival(const Request& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock* const clock_;

  mutable Mutex mutex_;
  CondVar has_mail_;
  CondVar quiet_;  // or a step has ended
  QueueLimits limits_ ABSL_GUARDED_BY(mutex_);
  std::vector<OpenModel> models_ ABSL_GUARDED_BY(mutex_);
  Mail mail_ ABSL_GUARDED_BY(mutex_);
  bool phase_changed_ ABSL_GUARDED_BY(mutex_) = false;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  bool sleeping_ ABSL_GUARDED_BY(mutex_) = false;
  RequestId last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  EngineSnapshot counts_ ABSL_GUARDED_BY(mutex_);  // arrivals included
  TokenRate rate_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace headcount
