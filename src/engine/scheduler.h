// Decides what each step computes. Pure: the same calls give the same plans; it
// reads no clock, draws no random number, takes no lock and knows no model.
//
//   Scheduler scheduler(options, &pool);
//   absl::StatusOr<int> model = scheduler.AddModel(...);
//   StepPlan plan = scheduler.Step(now, {.submitted = ..., .ends = ...});
//   ... compute plan.parts, draw tokens ...
//   scheduler.Commit(plan, results, duration);
//
// Order of a step:
//   1. what is past its deadline or cancelled ends, in whatever state it is; a
//      cancel that comes with the deadline or after it counts as the deadline;
//   2. sets of weights with work take turns, by device time over their share: a
//      plan is for one of them, a model and its variants;
//   3. running sequences get the block that their next token needs;
//   4. sequences that decode take their token of the budget, then those in the
//      middle of their prompt take chunks of it, oldest first. A long prompt
//      takes half of what is left, so that nobody waits for its end;
//   5. waiting sequences are admitted, in the order of FairQueue, on blocks for
//      all their tokens plus a watermark. What the prefix cache has of them is
//      not computed again;
//   6. what is left of the budget goes to the long prompts after all.
//
// When blocks are short, what only the prefix cache holds goes first
// (BlockPool::EvictionChoice). Then the newest running sequence of the lowest
// priority is preempted: it loses its blocks, which the cache keeps while it
// can, and waits. A model below its floor takes from models above theirs, for
// a waiting sequence too if that lets it in; others take from their own and
// from what is borrowed.
//
// In a group with a window, a sequence gives blocks back, after each step, that
// its next token does not see. "Blocks for all their tokens" are then as many
// as it can hold at once; while it computes its prompt, blocks that fall out of
// the window become those of later tokens, so that none must be waited for.
// Models with windows, or with more than one group, do not use the prefix
// cache: what it keeps of one group would lie in the way of another.
//
// Why it cannot hang: what can never fit is refused (CheckFits); the oldest
// running sequence is never preempted; after three preemptions a sequence
// comes back with blocks for its worst case and is never preempted again, and
// so does one whose own blocks, scattered over slabs, are in its way; no
// sequence is admitted before an older one that waits for blocks, unless its
// model is below its floor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/fair_queue.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "engine/sequence_limits.h"
#include "heads/kv_group.h"
#include "kv/block_pool.h"
#include "kv/prefix_cache.h"
#include "kv/prefix_hash.h"

namespace headcount {

struct SchedulerOptions {
  int32_t step_tokens = 256;  // budget of a step, prompt chunks and decode
  double watermark = 0.01;    // part of the pool kept free by admission
  bool prefix_cache = true;
  PrefixHashKey prefix_key = {};  // secret, so that tenants cannot collide
};

// A KvGroup of a model.
struct SchedulerGroup {
  int64_t block_bytes = 0;
  Retention retention = {};
};

struct SchedulerModel {
  std::vector<SchedulerGroup> groups;  // empty: no attention left
  PoolQuota quota = {};
  int32_t max_context = 0;     // tokens of a sequence
  int32_t max_concurrent = 0;  // running sequences; 0: no limit
  int32_t max_logits_rows =
      0;             // of a step; at least 1; a variant's: its base's
  int base = -1;     // the model whose weights it shares; -1: none
  double share = 1;  // of the device, over 0; a variant's: its base's
};

// An accepted request. Ids rise with every submission.
struct Submission {
  RequestId id = 0;
  Request request;
};

struct EndedRequest {
  RequestId id = 0;
  EndCause cause = EndCause::kStop;
};

// What happened since the last step.
struct StepEvents {
  std::vector<Submission> submitted;
  std::vector<EndedRequest> ends;  // cancels; ids that have ended are ignored
};

// The next `num_tokens` tokens of one sequence.
struct StepPart {
  const Sequence* sequence = nullptr;  // valid until Commit
  int32_t num_tokens = 0;
  int32_t logits_rows = 0;  // of the last tokens
};

struct StepPlan {
  int model = 0;                    // whose weights; parts may be variants'
  std::vector<StepPart> parts;      // empty: nothing to compute
  std::vector<EndedRequest> ended;  // by StepEvents::ends or their deadline
  int32_t prefill_tokens = 0;
  int32_t decode_tokens = 0;
};

// What a part of the plan came to.
struct StepResult {
  std::optional<int32_t> token = {};  // drawn as the sequence's next
  // All tokens are computed; this continuation follows the prompt next.
  std::optional<size_t> continuation = {};
  std::optional<EndCause> end = {};  // it ends here
};

struct SchedulerStats {
  struct PerModel {
    int32_t running = 0;
    int32_t waiting = 0;
    // In blocks that its sequences hold, once where they share one; the mean,
    // weighted by bytes, where groups keep unlike numbers of tokens.
    int64_t kv_tokens = 0;
    PoolModelBytes pool;
    // Since it was added, of first admissions that may use the prefix cache.
    uint64_t prefix_tokens = 0;      // looked for
    uint64_t prefix_hit_tokens = 0;  // found
    uint64_t preemptions = 0;
  };
  std::vector<PerModel> models;  // removed ones are zero
  int64_t waiting_tokens = 0;    // of all waiting sequences
  int64_t waiting_bytes = 0;
  uint64_t preemptions = 0;
  uint64_t evictions = 0;  // of blocks, from the prefix cache
};

// Not thread-safe. The pool outlives the scheduler, and is used by it alone.
class Scheduler {
 public:
  static constexpr int32_t kMaxPreemptions = 3;
  // Full steps that a prompt has left, from which on it is a long one.
  static constexpr int32_t kLongPromptSteps = 4;

  Scheduler(const SchedulerOptions& options, BlockPool* pool);
  ~Scheduler();

  // The model's index, the lowest that is not taken. As BlockPool::AddModel,
  // and ResourceExhausted when a live sequence of another model could never run
  // beside this one's floor.
  absl::StatusOr<int> AddModel(const SchedulerModel& model);
  // CHECKs that none of its sequences lives and that no variant is left.
  void RemoveModel(int model);

  // What CheckFits takes; changes when models come or go. Only what passes may
  // be submitted; what has ceased to pass by then ends with kError.
  const SequenceLimits& limits(int model) const;

  // Steps and commits alternate; a plan without parts needs no commit.
  StepPlan Step(absl::Time now, StepEvents events);
  // results: [plan.parts]; duration: device time that they took. Blocks of what
  // ends are free when this returns.
  void Commit(const StepPlan& plan, absl::Span<const StepResult> results,
              absl::Duration duration);

  bool idle() const { return sequences_.empty(); }
  bool Lives(RequestId id) const { return sequences_.count(id) == 1; }
  absl::Time NextDeadline() const;  // InfiniteFuture: none
  SchedulerStats Stats() const;

  // CHECK-fails where an invariant does not hold. Walks everything.
  void CheckInvariants() const;

 private:
  struct ModelState {
    SchedulerModel model;
    PoolModel pool;
    SequenceLimits limits;
    int lane = 0;
    bool shares_prefix = false;
    FairQueue waiting;
    int32_t running = 0;
    // The next waiting sequence was refused for want of blocks.
    bool short_of_blocks = false;
    uint64_t prefix_tokens = 0;
    uint64_t prefix_hit_tokens = 0;
    uint64_t preemptions = 0;
  };

  // A set of weights: a model and its variants, which run in the same steps.
  struct Lane {
    std::vector<int> models;  // the base first
    std::map<RequestId, Sequence*> running;
    int32_t max_running = 0;
    int32_t max_logits_rows = 0;
    double share = 1;
    double service = 0;  // device seconds over share
    int64_t live = 0;    // sequences
  };

  // What is left of the step.
  struct Budget {
    int32_t tokens = 0;
    int32_t rows = 0;
  };

  ModelState& state(int model) { return *models_[static_cast<size_t>(model)]; }
  const ModelState& state(int model) const {
    return *models_[static_cast<size_t>(model)];
  }
  ModelState& StateOf(const Sequence& s) { return state(s.model); }
  const ModelState& StateOf(const Sequence& s) const { return state(s.model); }
  Lane& lane(int id) { return *lanes_[static_cast<size_t>(id)]; }
  const Lane& lane(int id) const { return *lanes_[static_cast<size_t>(id)]; }

  // scheduler_models.cc
  int JoinLane(int model, const SchedulerModel& added);
  SequenceLimits LimitsOf(const ModelState& state) const;
  void RefreshLimits();
  absl::Status CheckLiveFit() const;

  // scheduler.cc
  bool Enqueue(Submission submission);
  void End(RequestId id);
  void PlanLane(Lane* lane, StepPlan* plan);
  bool GrowRunning(Lane* lane);
  // What a sequence may take of the budget while others wait for some.
  int32_t Chunk(const Sequence& sequence, const Budget& budget) const;
  void AddPart(Sequence* sequence, int32_t most_tokens, Budget* budget,
               StepPlan* plan);
  void FillPart(StepPart* part, Sequence* sequence, int32_t most_tokens,
                Budget* budget, StepPlan* plan);
  void CommitPart(Sequence* sequence, const StepPart& part,
                  const StepResult& result);

  // scheduler_admission.cc
  void AdmitWaiting(Lane* lane, Budget* budget, StepPlan* plan);
  Sequence* NextWaiting(const Lane& lane) const;
  bool Admit(Sequence* sequence);
  void Reuse(Sequence* sequence);
  void CountAdmission(Sequence* sequence);
  void ReleaseBlocks(Sequence* sequence);
  void Publish(Sequence* sequence);
  void ExtendHashes(Sequence* sequence, int64_t blocks);
  bool OlderIsShortOfBlocks(const Sequence& sequence) const;
  bool BelowWatermark(const Sequence& sequence) const;
  bool WithinFloor(const Sequence& sequence) const;
  bool NothingRuns() const;
  int32_t TokensToAdmit(const Sequence& sequence) const;

  // scheduler_memory.cc
  bool Allocate(Sequence* sequence, int32_t num_tokens);
  int64_t MissingBlocks(const Sequence& sequence, size_t group,
                        int32_t num_tokens) const;
  std::vector<int64_t> MissingBlocks(const Sequence& sequence,  // [group]
                                     int32_t num_tokens) const;
  // Whether nothing is missing, of what it may hold at once.
  bool HasBlocksFor(const Sequence& sequence, int32_t num_tokens) const;
  void TakeBackFloor(const Sequence& waiting);
  std::set<int64_t> KeptSlabs(int model) const;
  const Sequence* OldestRunning() const;  // null: nothing runs
  Sequence* VictimFor(int model) const;
  Sequence* VictimFor(int model, bool own_too) const;
  void Preempt(Sequence* sequence);
  bool IsScattered(const Sequence& sequence) const;
  void Gather(Sequence* sequence);
  // Takes all blocks of a running sequence and lets it wait; it is computed
  // anew.
  void Requeue(Sequence* sequence);
  void SlideWindows(Sequence* sequence);
  // Whether the blocks that its next token sees are all there.
  bool HoldsWindows(const Sequence& sequence) const;
  void CountKvTokens(SchedulerStats* stats) const;

  // scheduler_invariants.cc
  void CheckModels() const;
  void CheckBlocks() const;
  void CheckTables(const Sequence& sequence) const;

  const SchedulerOptions options_;
  BlockPool* const pool_;
  PrefixCache cache_;
  PrefixHasher hasher_;
  std::vector<std::unique_ptr<ModelState>> models_;  // null: removed
  std::vector<std::unique_ptr<Lane>> lanes_;         // null: removed
  std::map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::set<std::pair<absl::Time, RequestId>> deadlines_;  // finite ones
  std::vector<Sequence*> planned_;  // [parts of the last plan]
  RequestId newest_ = 0;
  double device_clock_ = 0;  // service of the lane that ran last, before it
  int64_t waiting_tokens_ = 0;
  int64_t waiting_bytes_ = 0;
  uint64_t preemptions_ = 0;
};

}  // namespace headcount
