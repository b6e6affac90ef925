// Decides what each step computes. Pure: the same calls give the same plans; it
// reads no clock, draws no random number, takes no lock and knows no model.
//
//   Scheduler scheduler(options, models, &pool);
//   StepPlan plan = scheduler.Step(now, {.submitted = ..., .ends = ...});
//   ... compute plan.parts, draw tokens ...
//   scheduler.Commit(plan, results);
//
// Order of a step:
//   1. what is past its deadline or cancelled ends, in whatever state it is; a
//      cancel that comes with the deadline or after it counts as the deadline;
//   2. models with work take turns: a plan is for one model;
//   3. running sequences of that model get the block that their next token
//      needs. When there is none, the newest running sequence of any model is
//      preempted: it loses its blocks and is computed again later;
//   4. sequences that decode take their token of the budget, then those in the
//      middle of their prompt take chunks of it, oldest first;
//   5. waiting sequences are admitted, oldest first, on blocks for all their
//      tokens plus a watermark.
//
// In a group with a window, a sequence gives blocks back, after each step, that
// its next token does not see. "Blocks for all their tokens" are then as many
// as it can hold at once; while it computes its prompt, blocks that fall out of
// the window become those of later tokens, so that none must be waited for.
//
// Why it cannot hang: what can never fit is refused (CheckFits); the oldest
// running sequence is never preempted; after three preemptions a sequence
// comes back with blocks for its worst case and is never preempted again; no
// sequence is admitted before an older one that waits for blocks.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "heads/kv_group.h"
#include "kv/block_pool.h"

namespace headcount {

struct SchedulerOptions {
  int32_t step_tokens = 256;  // budget of a step, prompt chunks and decode
  double watermark = 0.01;    // part of the pool kept free by admission
};

// A KvGroup of a model.
struct SchedulerGroup {
  GroupId id = 0;  // in the pool
  Retention retention = {};
};

struct SchedulerModel {
  std::vector<SchedulerGroup> groups;  // empty: no attention left
  int32_t max_context = 0;             // tokens of a sequence
  int32_t max_concurrent = 0;          // running sequences; 0: no limit
  int32_t max_logits_rows = 0;         // of a step; at least 1
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
  int model = 0;
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
    // In blocks that its sequences hold; the mean, weighted by bytes, where
    // groups keep unlike numbers of tokens.
    int64_t kv_tokens = 0;
  };
  std::vector<PerModel> models;
  int64_t waiting_tokens = 0;  // of all waiting sequences
  uint64_t preemptions = 0;
};

// Not thread-safe, but for CheckFits. The pool outlives the scheduler.
class Scheduler {
 public:
  static constexpr int32_t kMaxPreemptions = 3;

  Scheduler(const SchedulerOptions& options, std::vector<SchedulerModel> models,
            BlockPool* pool);

  // InvalidArgument, with needed and available, for what can never run: over
  // the context, or over an empty pool in the worst case. Only what passes may
  // be submitted. Thread-safe.
  absl::Status CheckFits(const Request& request) const;
  // Tokens of one sequence that an empty pool can hold. Thread-safe.
  int64_t PoolTokens(int model) const;

  // Steps and commits alternate; a plan without parts needs no commit.
  StepPlan Step(absl::Time now, StepEvents events);
  // results: [plan.parts]. Blocks of what ends are free when this returns.
  void Commit(const StepPlan& plan, absl::Span<const StepResult> results);

  bool idle() const { return sequences_.empty(); }
  absl::Time NextDeadline() const;  // InfiniteFuture: none
  SchedulerStats Stats() const;

  // CHECK-fails where an invariant does not hold. Walks everything.
  void CheckInvariants() const;

 private:
  using ByAge = std::map<RequestId, Sequence*>;  // oldest first

  struct ModelState {
    SchedulerModel model;
    int32_t max_running = 0;
    std::vector<int64_t> most_blocks;  // [group] that a sequence holds at once
    // Of each block table of one sequence, the pool otherwise empty.
    int64_t pool_entries = 0;
    ByAge running;
    ByAge waiting;
    // The oldest waiting sequence was refused for want of blocks.
    bool short_of_blocks = false;
  };

  // What is left of the step.
  struct Budget {
    int32_t tokens = 0;
    int32_t rows = 0;
  };

  void Enqueue(Submission submission);
  void End(RequestId id);
  void PlanModel(int model, StepPlan* plan);
  bool GrowRunning(ModelState* state);
  void AdmitWaiting(ModelState* state, Budget* budget, StepPlan* plan);
  bool Admit(Sequence* sequence);
  void AddPart(const Sequence& sequence, Budget* budget, StepPlan* plan);

  bool OlderIsShortOfBlocks(const Sequence& sequence) const;
  bool Allocate(Sequence* sequence, int32_t num_tokens);
  int64_t MissingBlocks(const Sequence& sequence, size_t group,
                        int32_t num_tokens) const;
  // Whether nothing is missing, of what it may hold at once.
  bool HasBlocksFor(const Sequence& sequence, int32_t num_tokens) const;
  void SlideWindows(Sequence* sequence);
  // Whether the blocks that its next token sees are all there.
  bool HoldsWindows(const Sequence& sequence) const;
  bool BelowWatermark(const ModelState& state) const;
  Sequence* NewestVictim() const;
  void Preempt(Sequence* sequence);
  // Takes all blocks of a running sequence and lets it wait; it is computed
  // anew.
  void Requeue(Sequence* sequence);
  bool NothingRuns() const;
  int32_t TokensToAdmit(const Sequence& sequence) const;
  int64_t TokensHeld(const Sequence& sequence) const;
  void CheckBlocks() const;
  void CheckTables(const Sequence& sequence) const;

  SchedulerOptions options_;
  BlockPool* pool_;
  std::vector<ModelState> models_;
  std::map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::set<std::pair<absl::Time, RequestId>> deadlines_;  // finite ones
  RequestId newest_ = 0;
  int turn_ = 0;  // model that is asked first, modulo their number
  int64_t waiting_tokens_ = 0;
  uint64_t preemptions_ = 0;
};

}  // namespace headcount
