// Drives a Scheduler over a real BlockPool, with a made-up source of tokens in
// place of a model, and checks after every step what must always hold.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "engine/scheduler.h"
#include "kv/block_pool.h"

namespace headcount {

struct DriverModel {
  std::vector<int64_t> block_bytes = {1024};  // [group]
  std::vector<int32_t> windows = {};          // [group]; empty: all full
  int32_t max_context = 1000;
  int32_t max_concurrent = 0;
  int32_t max_logits_rows = 64;
  PoolQuota quota = {};
  int base = -1;
  double share = 1;
};

struct DriverOptions {
  int64_t slabs = 4;
  int64_t slab_bytes = 4096;
  SchedulerOptions scheduler = {.step_tokens = 64, .watermark = 0};
  std::vector<DriverModel> models = {DriverModel{}};
  // That the newest go first, whatever their model.
  bool check_preemption_order = true;
};

SchedulerModel Made(const DriverModel& model);

// One model and a pool of so many of its blocks of 16 tokens.
DriverOptions PoolOf(int64_t blocks);

Request RequestOf(int32_t prompt_tokens, int32_t max_tokens);
// Scores continuations of so many tokens.
Request ScoreOf(int32_t prompt_tokens, const std::vector<int>& continuations);

class SchedulerDriver {
 public:
  explicit SchedulerDriver(const DriverOptions& options);

  absl::Status CheckFits(const Request& request) const;
  // Submits with the next step. CHECKs that the request fits.
  RequestId Submit(Request request);
  RequestId Submit(int32_t prompt_tokens, int32_t max_tokens, int model = 0);
  void Cancel(RequestId id);

  // Schedules, checks the plan, "computes" and commits.
  StepPlan Step();
  // Steps until nothing is left; fails the test when that takes too long.
  void RunDry();

  // The token that stands at `index` of the sequence.
  static int32_t Token(RequestId id, int32_t index);
  static int32_t ContinuationToken(RequestId id, size_t continuation,
                                   size_t index);

  bool Runs(RequestId id) const { return running_.count(id) == 1; }
  bool Live(RequestId id) const;
  // How it ended; nothing while it lives.
  std::optional<EndCause> Ended(RequestId id) const;
  int32_t Preemptions(RequestId id) const;
  // Positions whose logits were used, in order.
  const std::vector<int32_t>& UsedLogits(RequestId id) const;
  int32_t Generated(RequestId id) const { return requests_.at(id).generated; }

  // Ends the request with kStop once it has generated so many tokens.
  void StopAfter(RequestId id, int32_t tokens);

  BlockPool& pool() { return pool_; }
  Scheduler& scheduler() { return *scheduler_; }
  const Scheduler& scheduler() const { return *scheduler_; }
  absl::Time now = absl::UnixEpoch();
  absl::Duration step_time = absl::Milliseconds(1);  // of the device

 private:
  struct Shadow {
    Request request;
    std::optional<EndCause> ended;
    std::optional<int32_t> stop_after;
    int32_t generated = 0;
    size_t continuation = 0;  // that follows the prompt
    int32_t computed = 0;     // since it was last admitted
    int32_t preemptions = 0;
    std::vector<int32_t> used_logits;

    bool NextContinuation();
  };

  void CheckPreemptions();
  void CheckPlan(const StepPlan& plan);
  bool LostPromptEnd(const Sequence& sequence) const;
  StepResult Compute(const StepPart& part);
  void End(RequestId id, EndCause cause);

  DriverOptions options_;
  BlockPool pool_;
  std::optional<Scheduler> scheduler_;
  StepEvents events_;
  std::map<RequestId, Shadow> requests_;
  std::map<RequestId, const Sequence*> running_;
  RequestId next_id_ = 1;
};

}  // namespace headcount
