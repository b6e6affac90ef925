#include "engine/scheduler.h"

#include <algorithm>

#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount {

Scheduler::Scheduler(const SchedulerOptions& options, BlockPool* pool)
    : options_(options),
      pool_(pool),
      cache_(pool),
      hasher_(options.prefix_key) {
  CHECK(options.step_tokens >= 1) << options.step_tokens;
}

Scheduler::~Scheduler() = default;

StepPlan Scheduler::Step(absl::Time now, StepEvents events) {
  StepPlan plan;
  planned_.clear();
  for (Submission& submission : events.submitted) {
    const RequestId id = submission.id;
    if (!Enqueue(std::move(submission))) {
      plan.ended.push_back({id, EndCause::kError});
    }
  }
  // Deadlines first: a client whose time is up hangs up as well.
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    plan.ended.push_back({deadlines_.begin()->second, EndCause::kDeadline});
    End(deadlines_.begin()->second);
  }
  for (const EndedRequest& ended : events.ends) {
    if (!Lives(ended.id)) continue;
    End(ended.id);
    plan.ended.push_back(ended);
  }
  std::vector<Lane*> turns;
  for (const auto& lane : lanes_) {
    if (lane != nullptr && lane->live > 0) turns.push_back(lane.get());
  }
  std::stable_sort(
      turns.begin(), turns.end(),
      [](const Lane* a, const Lane* b) { return a->service < b->service; });
  for (Lane* const lane : turns) {
    PlanLane(lane, &plan);
    if (plan.parts.empty()) continue;
    device_clock_ = std::max(device_clock_, lane->service);
    break;
  }
  return plan;
}

void Scheduler::Commit(const StepPlan& plan,
                       absl::Span<const StepResult> results,
                       absl::Duration duration) {
  CHECK(results.size() == plan.parts.size())
      << results.size() << " results of " << plan.parts.size() << " parts";
  if (plan.parts.empty()) return;
  Lane& ran = lane(state(plan.model).lane);
  ran.service += absl::ToDoubleSeconds(duration) / ran.share;
  for (size_t i = 0; i < results.size(); ++i) {
    CHECK(planned_[i] == plan.parts[i].sequence) << "not the last plan";
    CommitPart(planned_[i], plan.parts[i], results[i]);
  }
  for (const int model : ran.models) state(model).waiting.Settle();
}

void Scheduler::CommitPart(Sequence* sequence, const StepPart& part,
                           const StepResult& result) {
  sequence->computed += part.num_tokens;
  sequence->next_logits = std::max(sequence->next_logits, sequence->computed);
  if (result.token) {
    sequence->tokens.push_back(*result.token);
    StateOf(*sequence).waiting.Charge(*sequence, FairQueue::kGeneratedCost);
  }
  // What an error left in the blocks is nobody's.
  if (result.end == EndCause::kError) return End(sequence->id);
  Publish(sequence);
  if (result.end) return End(sequence->id);
  if (result.continuation) {
    sequence->Follow(*result.continuation);
    // The one before it may have moved a window past the prompt's end.
    if (!HoldsWindows(*sequence)) return Requeue(sequence);
  }
  SlideWindows(sequence);
}

absl::Time Scheduler::NextDeadline() const {
  return deadlines_.empty() ? absl::InfiniteFuture()
                            : deadlines_.begin()->first;
}

bool Scheduler::Enqueue(Submission submission) {
  CHECK(submission.id > newest_) << submission.id << " after " << newest_;
  newest_ = submission.id;
  const auto model = static_cast<size_t>(submission.request.model);
  if (model >= models_.size() || models_[model] == nullptr) return false;
  if (!CheckFits(models_[model]->limits, submission.request).ok()) return false;
  ModelState& its_model = *models_[model];
  auto owned = std::make_unique<Sequence>(
      submission.id, std::move(submission.request), its_model.model.max_context,
      its_model.model.groups.size(), its_model.shares_prefix);
  Sequence* const sequence = owned.get();
  Lane& its_lane = lane(its_model.lane);
  // Who comes back has no turns saved up.
  if (its_lane.live++ == 0) {
    its_lane.service = std::max(its_lane.service, device_clock_);
  }
  its_model.waiting.Open(sequence);
  its_model.waiting.Push(sequence);
  waiting_tokens_ += sequence->length();
  waiting_bytes_ += sequence->bytes;
  if (sequence->deadline != absl::InfiniteFuture()) {
    deadlines_.emplace(sequence->deadline, sequence->id);
  }
  sequences_.emplace(sequence->id, std::move(owned));
  return true;
}

void Scheduler::End(RequestId id) {
  const auto found = sequences_.find(id);
  Sequence& sequence = *found->second;
  ModelState& its_model = StateOf(sequence);
  Lane& its_lane = lane(its_model.lane);
  if (its_lane.running.erase(id) == 1) {
    --its_model.running;
  } else {
    its_model.waiting.Erase(&sequence);
    waiting_tokens_ -= sequence.length();
    waiting_bytes_ -= sequence.bytes;
  }
  --its_lane.live;
  its_model.waiting.Close(&sequence);
  deadlines_.erase({sequence.deadline, id});
  sequences_.erase(found);
}

void Scheduler::PlanLane(Lane* lane, StepPlan* plan) {
  plan->model = lane->models.front();
  const bool preempted = GrowRunning(lane);
  if (!preempted) {
    for (const int model : lane->models) {
      state(model).short_of_blocks = false;
      const Sequence* const first = state(model).waiting.Next();
      if (first != nullptr) TakeBackFloor(*first);
    }
  }
  Budget budget{options_.step_tokens, lane->max_logits_rows};
  for (const bool decoding : {true, false}) {
    for (const auto& [id, sequence] : lane->running) {
      if (sequence->decoding() != decoding) continue;
      if (!HasBlocksFor(*sequence, sequence->length())) continue;
      AddPart(sequence, Chunk(*sequence, budget), &budget, plan);
    }
  }
  if (!preempted) AdmitWaiting(lane, &budget, plan);
  for (size_t i = 0; i < plan->parts.size() && budget.tokens > 0; ++i) {
    FillPart(&plan->parts[i], planned_[i], budget.tokens, &budget, plan);
  }
}

// Returns whether a sequence was preempted. A sequence may stay without room:
// when all that could make place for it hold reservations, which end by
// themselves. One that is in its own way is gathered.
bool Scheduler::GrowRunning(Lane* lane) {
  const uint64_t before = preemptions_;
  for (auto it = lane->running.begin(); it != lane->running.end();) {
    Sequence* const sequence = (it++)->second;
    if (HasBlocksFor(*sequence, sequence->length())) continue;
    while (!Allocate(sequence, sequence->length())) {
      Sequence* const victim = VictimFor(sequence->model);
      if (victim == nullptr) {
        if (IsScattered(*sequence)) Gather(sequence);
        break;
      }
      Preempt(victim);
      if (victim == sequence) break;
    }
    it = lane->running.upper_bound(sequence->id);  // the victim is gone
  }
  return preemptions_ != before;
}

int32_t Scheduler::Chunk(const Sequence& sequence, const Budget& budget) const {
  const bool is_long =
      sequence.remaining() / kLongPromptSteps > options_.step_tokens;
  return is_long ? (budget.tokens + 1) / 2 : budget.tokens;
}

void Scheduler::AddPart(Sequence* sequence, int32_t most_tokens, Budget* budget,
                        StepPlan* plan) {
  StepPart part{.sequence = sequence};
  FillPart(&part, sequence, most_tokens, budget, plan);
  if (part.num_tokens == 0) return;
  plan->parts.push_back(part);
  planned_.push_back(sequence);
}

// Gives a part up to `most_tokens` more.
void Scheduler::FillPart(StepPart* part, Sequence* sequence,
                         int32_t most_tokens, Budget* budget, StepPlan* plan) {
  const int32_t tokens =
      std::min(part->num_tokens + most_tokens,
               sequence->TokensWithin(budget->rows + part->logits_rows));
  const int32_t rows = sequence->LogitsRows(tokens);
  budget->tokens -= tokens - part->num_tokens;
  budget->rows -= rows - part->logits_rows;
  (sequence->decoding() ? plan->decode_tokens : plan->prefill_tokens) +=
      tokens - part->num_tokens;
  part->num_tokens = tokens;
  part->logits_rows = rows;
}

SchedulerStats Scheduler::Stats() const {
  SchedulerStats stats;
  stats.models.resize(models_.size());
  for (size_t i = 0; i < models_.size(); ++i) {
    if (models_[i] == nullptr) continue;
    SchedulerStats::PerModel& model = stats.models[i];
    model.running = models_[i]->running;
    model.waiting = static_cast<int32_t>(models_[i]->waiting.size());
    model.pool = pool_->bytes(models_[i]->pool.id);
    model.prefix_tokens = models_[i]->prefix_tokens;
    model.prefix_hit_tokens = models_[i]->prefix_hit_tokens;
    model.preemptions = models_[i]->preemptions;
  }
  CountKvTokens(&stats);
  stats.waiting_tokens = waiting_tokens_;
  stats.waiting_bytes = waiting_bytes_;
  stats.preemptions = preemptions_;
  stats.evictions = cache_.evictions();
  return stats;
}

}  // namespace headcount
