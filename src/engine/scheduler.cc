#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int32_t>::max();

// The most entries that each block table of one sequence can have when the pool
// is otherwise empty. most_blocks: [group] held at once.
int64_t EntriesInEmptyPool(const BlockPool& pool,
                           const std::vector<SchedulerGroup>& groups,
                           const std::vector<int64_t>& most_blocks) {
  const int64_t slabs = pool.capacity_bytes() / pool.slab_bytes();
  const auto fits = [&](int64_t entries) {
    int64_t needed = 0;
    for (size_t i = 0; i < groups.size(); ++i) {
      const int64_t blocks = std::min(entries, most_blocks[i]);
      const int64_t per_slab =
          pool.slab_bytes() / pool.block_bytes(groups[i].id);
      needed += (blocks + per_slab - 1) / per_slab;
    }
    return needed <= slabs;
  };
  if (fits(kUnlimited)) return kUnlimited;
  int64_t low = 0;
  int64_t high = kUnlimited;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

bool Reserved(const Sequence& sequence) {
  return sequence.preemptions >= Scheduler::kMaxPreemptions;
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options,
                     std::vector<SchedulerModel> models, BlockPool* pool)
    : options_(options), pool_(pool) {
  CHECK(options.step_tokens >= 1) << options.step_tokens;
  for (SchedulerModel& model : models) {
    CHECK(model.max_logits_rows >= 1) << model.max_logits_rows;
    ModelState& state = models_.emplace_back();
    for (const SchedulerGroup& group : model.groups) {
      state.most_blocks.push_back(
          KvGeometry::MostBlocks(group.retention, options.step_tokens));
    }
    state.pool_entries =
        EntriesInEmptyPool(*pool, model.groups, state.most_blocks);
    // Every running sequence can then have a token of each step.
    state.max_running = std::min(options.step_tokens, model.max_logits_rows);
    if (model.max_concurrent > 0) {
      state.max_running = std::min(state.max_running, model.max_concurrent);
    }
    state.model = std::move(model);
  }
}

absl::Status Scheduler::CheckFits(const Request& request) const {
  const ModelState& state = models_[static_cast<size_t>(request.model)];
  const int64_t context = state.model.max_context;
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t new_tokens = MaxNewTokens(request);
  const bool generates = request.continuations.empty();
  const int64_t least_new =
      generates ? std::min<int64_t>(new_tokens, 1) : new_tokens;
  if (prompt + least_new > context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt: ", prompt, " tokens, of which at most ",
        std::max<int64_t>(context - least_new, 0), " fit the context of ",
        context, " tokens; shorten the prompt"));
  }
  const int64_t most = std::min(prompt + new_tokens, context);
  const int64_t entries = KvGeometry::BlocksFor(std::max(prompt, most - 1));
  if (entries > state.pool_entries) {
    int64_t blocks = 0;  // at once, of the group that needs the most
    for (const int64_t held : state.most_blocks) {
      blocks = std::max(blocks, std::min(entries, held));
    }
    return absl::InvalidArgumentError(absl::StrCat(
        generates ? "max_tokens" : "prompt", ": a prompt of ", prompt,
        " tokens and up to ", most - prompt, " after it need ", blocks,
        " KV blocks, and the whole pool has ", state.pool_entries,
        " available (", PoolTokens(request.model),
        " tokens); ask for fewer tokens or enlarge the pool"));
  }
  return absl::OkStatus();
}

int64_t Scheduler::PoolTokens(int model) const {
  return models_[static_cast<size_t>(model)].pool_entries * kBlockTokens;
}

StepPlan Scheduler::Step(absl::Time now, StepEvents events) {
  StepPlan plan;
  for (Submission& submission : events.submitted) {
    Enqueue(std::move(submission));
  }
  // Deadlines first: a client whose time is up hangs up as well.
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    plan.ended.push_back({deadlines_.begin()->second, EndCause::kDeadline});
    End(deadlines_.begin()->second);
  }
  for (const EndedRequest& ended : events.ends) {
    if (sequences_.count(ended.id) == 0) continue;
    End(ended.id);
    plan.ended.push_back(ended);
  }
  const int num_models = static_cast<int>(models_.size());
  for (int i = 0; i < num_models && plan.parts.empty(); ++i) {
    PlanModel((turn_ + i) % num_models, &plan);
  }
  if (!plan.parts.empty()) turn_ = plan.model + 1;
  return plan;
}

void Scheduler::Commit(const StepPlan& plan,
                       absl::Span<const StepResult> results) {
  CHECK(results.size() == plan.parts.size())
      << results.size() << " results of " << plan.parts.size() << " parts";
  for (size_t i = 0; i < results.size(); ++i) {
    Sequence& sequence = *sequences_.at(plan.parts[i].sequence->id);
    sequence.computed += plan.parts[i].num_tokens;
    sequence.next_logits = std::max(sequence.next_logits, sequence.computed);
    if (results[i].token) sequence.tokens.push_back(*results[i].token);
    if (results[i].end) {
      End(sequence.id);
      continue;
    }
    if (results[i].continuation) {
      sequence.Follow(*results[i].continuation);
      // The one before it may have moved a window past the prompt's end.
      if (!HoldsWindows(sequence)) {
        Requeue(&sequence);
        continue;
      }
    }
    SlideWindows(&sequence);
  }
}

absl::Time Scheduler::NextDeadline() const {
  return deadlines_.empty() ? absl::InfiniteFuture()
                            : deadlines_.begin()->first;
}

void Scheduler::Enqueue(Submission submission) {
  CHECK(submission.id > newest_) << submission.id << " after " << newest_;
  newest_ = submission.id;
  ModelState& state = models_[static_cast<size_t>(submission.request.model)];
  auto owned = std::make_unique<Sequence>(
      submission.id, std::move(submission.request), state.model.max_context,
      state.model.groups.size());
  Sequence* sequence = owned.get();
  state.waiting.emplace(sequence->id, sequence);
  waiting_tokens_ += sequence->length();
  if (sequence->deadline != absl::InfiniteFuture()) {
    deadlines_.emplace(sequence->deadline, sequence->id);
  }
  sequences_.emplace(sequence->id, std::move(owned));
}

void Scheduler::End(RequestId id) {
  const auto found = sequences_.find(id);
  const Sequence& sequence = *found->second;
  ModelState& state = models_[static_cast<size_t>(sequence.model)];
  if (state.running.erase(id) == 0) {
    state.waiting.erase(id);
    waiting_tokens_ -= sequence.length();
  }
  deadlines_.erase({sequence.deadline, id});
  sequences_.erase(found);
}

void Scheduler::PlanModel(int model, StepPlan* plan) {
  ModelState& state = models_[static_cast<size_t>(model)];
  plan->model = model;
  const bool preempted = GrowRunning(&state);
  Budget budget{options_.step_tokens, state.model.max_logits_rows};
  for (const bool decoding : {true, false}) {
    for (const auto& [id, sequence] : state.running) {
      if (sequence->decoding() != decoding) continue;
      if (!HasBlocksFor(*sequence, sequence->length())) continue;
      AddPart(*sequence, &budget, plan);
    }
  }
  if (!preempted) AdmitWaiting(&state, &budget, plan);
}

// Returns whether a sequence was preempted. A sequence may stay without room:
// when all that could make place for it hold reservations, which end by
// themselves.
bool Scheduler::GrowRunning(ModelState* state) {
  const uint64_t before = preemptions_;
  for (auto it = state->running.begin(); it != state->running.end();) {
    Sequence* sequence = it->second;
    while (!Allocate(sequence, sequence->length())) {
      Sequence* victim = NewestVictim();
      if (victim == nullptr) break;
      Preempt(victim);
      if (victim == sequence) break;
    }
    it = state->running.upper_bound(sequence->id);
  }
  return preemptions_ != before;
}

void Scheduler::AdmitWaiting(ModelState* state, Budget* budget,
                             StepPlan* plan) {
  state->short_of_blocks = false;
  while (!state->waiting.empty() &&
         static_cast<int32_t>(state->running.size()) < state->max_running &&
         budget->tokens > 0 && budget->rows > 0) {
    Sequence* sequence = state->waiting.begin()->second;
    if (OlderIsShortOfBlocks(*sequence)) return;
    if (!Admit(sequence)) {
      state->short_of_blocks = true;
      return;
    }
    AddPart(*sequence, budget, plan);
  }
}

bool Scheduler::Admit(Sequence* sequence) {
  ModelState& state = models_[static_cast<size_t>(sequence->model)];
  if (!Allocate(sequence, TokensToAdmit(*sequence))) return false;
  if (BelowWatermark(state) && !NothingRuns()) {
    for (BlockTable& table : sequence->tables) table.Clear();
    return false;
  }
  state.waiting.erase(sequence->id);
  state.running.emplace(sequence->id, sequence);
  waiting_tokens_ -= sequence->length();
  return true;
}

void Scheduler::AddPart(const Sequence& sequence, Budget* budget,
                        StepPlan* plan) {
  const int32_t tokens =
      std::min(budget->tokens, sequence.TokensWithin(budget->rows));
  if (tokens == 0) return;
  const int32_t rows = sequence.LogitsRows(tokens);
  budget->tokens -= tokens;
  budget->rows -= rows;
  (sequence.decoding() ? plan->decode_tokens : plan->prefill_tokens) += tokens;
  plan->parts.push_back({&sequence, tokens, rows});
}

bool Scheduler::OlderIsShortOfBlocks(const Sequence& sequence) const {
  return std::any_of(models_.begin(), models_.end(),
                     [&](const ModelState& state) {
                       return state.short_of_blocks && !state.waiting.empty() &&
                              state.waiting.begin()->first < sequence.id;
                     });
}

// Gives the sequence blocks for `num_tokens`, or as many of them as it may hold
// at once; or leaves it as it is.
bool Scheduler::Allocate(Sequence* sequence, int32_t num_tokens) {
  const ModelState& state = models_[static_cast<size_t>(sequence->model)];
  std::vector<std::vector<BlockRef>> blocks;
  for (size_t i = 0; i < sequence->tables.size(); ++i) {
    const auto missing =
        static_cast<int>(MissingBlocks(*sequence, i, num_tokens));
    blocks.push_back(pool_->Allocate(state.model.groups[i].id, missing));
    if (static_cast<int>(blocks.back().size()) < missing) return false;
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    sequence->tables[i].Append(std::move(blocks[i]));
  }
  return true;
}

int64_t Scheduler::MissingBlocks(const Sequence& sequence, size_t group,
                                 int32_t num_tokens) const {
  const ModelState& state = models_[static_cast<size_t>(sequence.model)];
  const BlockTable& table = sequence.tables[group];
  const int64_t missing =
      KvGeometry::BlocksFor(num_tokens) - table.num_entries();
  return std::clamp<int64_t>(missing, 0,
                             state.most_blocks[group] - table.num_blocks());
}

bool Scheduler::HasBlocksFor(const Sequence& sequence,
                             int32_t num_tokens) const {
  for (size_t i = 0; i < sequence.tables.size(); ++i) {
    if (MissingBlocks(sequence, i, num_tokens) > 0) return false;
  }
  return true;
}

bool Scheduler::BelowWatermark(const ModelState& state) const {
  return std::any_of(
      state.model.groups.begin(), state.model.groups.end(),
      [&](const SchedulerGroup& group) {
        const auto total = static_cast<double>(pool_->TotalBlocks(group.id));
        const auto free = static_cast<double>(pool_->AvailableBlocks(group.id));
        return free < std::ceil(options_.watermark * total);
      });
}

bool Scheduler::NothingRuns() const {
  return std::all_of(
      models_.begin(), models_.end(),
      [](const ModelState& state) { return state.running.empty(); });
}

// The newest running sequence of any model that has blocks and may be
// preempted, or null.
Sequence* Scheduler::NewestVictim() const {
  const Sequence* oldest = nullptr;
  Sequence* newest = nullptr;
  for (const ModelState& state : models_) {
    for (const auto& [id, sequence] : state.running) {
      if (oldest == nullptr || id < oldest->id) oldest = sequence;
      if (Reserved(*sequence) || sequence->tables.empty()) continue;
      if (newest == nullptr || id > newest->id) newest = sequence;
    }
  }
  return newest == oldest ? nullptr : newest;
}

void Scheduler::Preempt(Sequence* sequence) {
  ++sequence->preemptions;
  ++preemptions_;
  Requeue(sequence);
}

void Scheduler::Requeue(Sequence* sequence) {
  ModelState& state = models_[static_cast<size_t>(sequence->model)];
  for (BlockTable& table : sequence->tables) table.Clear();
  sequence->computed = 0;
  state.running.erase(sequence->id);
  state.waiting.emplace(sequence->id, sequence);
  waiting_tokens_ += sequence->length();
}

int32_t Scheduler::TokensToAdmit(const Sequence& sequence) const {
  return Reserved(sequence) ? sequence.max_kv_tokens : sequence.length();
}

int64_t Scheduler::TokensHeld(const Sequence& sequence) const {
  const ModelState& state = models_[static_cast<size_t>(sequence.model)];
  int64_t all_bytes = 0;
  int64_t held = 0;
  for (size_t i = 0; i < sequence.tables.size(); ++i) {
    const int64_t bytes = pool_->block_bytes(state.model.groups[i].id);
    const int64_t given_back = sequence.tables[i].num_holes() * kBlockTokens;
    all_bytes += bytes;
    held += bytes * (sequence.computed - given_back);
  }
  return all_bytes == 0 ? sequence.computed : held / all_bytes;
}

SchedulerStats Scheduler::Stats() const {
  SchedulerStats stats;
  for (const ModelState& state : models_) {
    SchedulerStats::PerModel& model = stats.models.emplace_back();
    model.running = static_cast<int32_t>(state.running.size());
    model.waiting = static_cast<int32_t>(state.waiting.size());
    for (const auto& [id, sequence] : state.running) {
      model.kv_tokens += TokensHeld(*sequence);
    }
  }
  stats.waiting_tokens = waiting_tokens_;
  stats.preemptions = preemptions_;
  return stats;
}

}  // namespace headcount
