#include "tests/sim/oracle.h"

#include <algorithm>

#include "heads/kv_geometry.h"
#include "tests/sim/random.h"

namespace headcount::sim {
namespace {

uint64_t HashOf(const std::string& text) {
  uint64_t hash = text.size();
  for (const char c : text) hash = Mix(hash, static_cast<unsigned char>(c));
  return hash;
}

}  // namespace

Oracle::Oracle(const World& world, const Scheduler* scheduler,
               const BlockPool* pool, Verdict* verdict)
    : world_(world),
      scheduler_(scheduler),
      pool_(pool),
      verdict_(verdict),
      blocks_(pool, verdict) {}

Record* Oracle::Find(RequestId id) {
  const auto found = std::lower_bound(
      live_.begin(), live_.end(), id,
      [](const auto& record, RequestId other) { return record->id < other; });
  if (found == live_.end() || (*found)->id != id) return nullptr;
  return found->get();
}

BlockOwner Oracle::OwnerOf(const Record& record, size_t group) {
  return {.model = record.model,
          .group = static_cast<int>(group),
          .block_bytes = Of(record).model.groups[group].block_bytes};
}

void Oracle::Extend(Record* record, const std::vector<int32_t>& tokens,
                    size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const uint64_t before =
        record->content.empty() ? record->root : record->content.back();
    record->tokens.push_back(tokens[i]);
    record->content.push_back(Mix(before, static_cast<uint64_t>(tokens[i])));
  }
}

uint64_t Oracle::KeyOf(const Record& record, size_t group,
                       int64_t block) const {
  const auto last = static_cast<size_t>((block + 1) * kBlockTokens - 1);
  return Mix(record.content[last], group) | 1;
}

void Oracle::Submitted(RequestId id, const Request& request, const Wish& wish) {
  auto record = std::make_unique<Record>();
  record->id = id;
  record->model = request.model;
  record->tenant = request.tenant;
  record->priority = request.priority;
  record->deadline = request.deadline;
  record->bytes = RequestBytes(request);
  record->prompt_tokens = static_cast<int32_t>(request.prompt.size());
  record->prompt = request.prompt;
  record->continuations = request.continuations;
  record->wish = wish;
  ++counts_.accepted;
  const auto index = static_cast<size_t>(request.model);
  if (index < models_.size() && models_[index] && Fits(request)) {
    ModelRecord& its_model = *models_[index];
    ++its_model.waiting;
    size_t longest = static_cast<size_t>(request.sampling.max_tokens);
    for (const auto& one : request.continuations) {
      longest = std::max(longest, one.size());
    }
    record->max_length =
        std::min(record->prompt_tokens + static_cast<int32_t>(longest),
                 its_model.model.max_context);
    record->max_kv_tokens =
        std::max(record->prompt_tokens, record->max_length - 1);
    record->shares_prefix =
        its_model.shares_prefix && request.head_gates.empty();
    record->root = Mix(
        Mix(its_model.root, HashOf(request.tenant)),
        Mix(HashOf(request.cache_salt), request.head_gates.empty() ? 0 : id));
    record->blocks.resize(its_model.model.groups.size());
    Extend(record.get(), request.prompt, request.prompt.size());
    while (record->continuation < record->continuations.size()) {
      const auto& next = record->continuations[record->continuation];
      if (next.size() > 1) {
        Extend(record.get(), next, next.size() - 1);
        break;
      }
      ++record->continuation;
    }
    record->next_row = record->prompt_tokens - 1;
    if (request.deadline != absl::InfiniteFuture()) {
      deadlines_.emplace(request.deadline, id);
    }
  } else {
    record->model = -1;  // is to be refused by the step
  }
  live_.push_back(std::move(record));
}

void Oracle::BeforeStep() {
  ++step_;
  for (size_t i = 0; i < models_.size(); ++i) {
    if (!models_[i] || models_[i]->floor_slabs == 0) continue;
    models_[i]->lent_before =
        pool_->bytes(static_cast<int>(i)).lent / world_.slab_bytes;
  }
}

void Oracle::AfterStep(absl::Time now, const StepPlan& plan,
                       const std::vector<EndedRequest>& asked) {
  planned_.clear();
  admitted_.clear();
  victims_.clear();
  ObserveEnds(now, plan, asked);
  ObservePreemptions(plan);
  if (verdict_->broken()) return;
  for (const auto& record : live_) {
    if (record->running) ObserveGrowth(record.get());
  }
  ObserveParts(plan);
  if (verdict_->broken()) return;
  blocks_.CheckUsed();
  CheckBudget(plan);
  CheckDecoders(plan);
  CheckAdmissionOrder();
  CheckVictims(plan);
  CheckFloors(plan);
  CheckWatermark();
  CheckProgress(plan);
}

void Oracle::ObserveEnds(absl::Time now, const StepPlan& plan,
                         const std::vector<EndedRequest>& asked) {
  for (const EndedRequest& ended : plan.ended) {
    Record* const record = Find(ended.id);
    if (!verdict_->Expect(record != nullptr, "I6 ends once", "request ",
                          ended.id)) {
      return;
    }
    if (record->model < 0) {
      verdict_->Expect(ended.cause == EndCause::kError,
                       "I7 what cannot run is refused", "request ", ended.id);
    } else if (record->deadline <= now) {
      verdict_->Expect(ended.cause == EndCause::kDeadline,
                       "I10 a deadline comes before a cancel", "request ",
                       ended.id);
    } else {
      verdict_->Expect(std::any_of(asked.begin(), asked.end(),
                                   [&](const EndedRequest& one) {
                                     return one.id == ended.id &&
                                            one.cause == ended.cause;
                                   }),
                       "I6 ends by itself only", "request ", ended.id);
    }
    Remove(record);
  }
  for (const EndedRequest& ended : asked) {
    verdict_->Expect(Find(ended.id) == nullptr,
                     "I13 a cancel ends a request at once", "request ",
                     ended.id);
  }
  verdict_->Expect(deadlines_.empty() || deadlines_.begin()->first > now,
                   "I10 a request outlives its deadline", "at step ", step_);
  for (auto it = live_.rbegin(); it != live_.rend() && !(*it)->admitted; ++it) {
    verdict_->Expect((*it)->model >= 0, "I7 what cannot run is refused",
                     "request ", (*it)->id);
  }
  verdict_->Expect(scheduler_->idle() == live_.empty(),
                   "I7 live and ended are all that was accepted", live_.size(),
                   " live");
}

void Oracle::Remove(Record* record) {
  ++counts_.ended;
  if (record->model >= 0) {
    ReleaseAll(record);
    --(record->running ? Of(*record).running : Of(*record).waiting);
    deadlines_.erase({record->deadline, record->id});
  }
  live_.erase(std::lower_bound(
      live_.begin(), live_.end(), record->id,
      [](const auto& one, RequestId id) { return one->id < id; }));
}

void Oracle::ReleaseAll(Record* record) {
  for (std::vector<int64_t>& table : record->blocks) {
    for (const int64_t offset : table) {
      if (offset >= 0) blocks_.Release(offset);
    }
    table.clear();
  }
  record->published = 0;
}

// A sequence that has lost what it had computed was preempted. Whoever is not
// planned then waits, with nothing.
void Oracle::ObservePreemptions(const StepPlan& plan) {
  const Record* oldest = nullptr;
  for (const auto& owned : live_) {
    Record* const record = owned.get();
    if (!record->running) continue;
    if (oldest == nullptr) oldest = record;
    const Sequence& sequence = *record->sequence;
    if (sequence.preemptions == record->preemptions &&
        sequence.computed == record->computed) {
      continue;
    }
    if (sequence.preemptions == record->preemptions) {
      CheckGathered(record);
    } else {
      victims_.push_back({record, record == oldest});
      ++record->preemptions;
      ++counts_.preemptions;
    }
    ReleaseAll(record);
    record->running = false;
    record->computed = 0;
    --Of(*record).running;
    ++Of(*record).waiting;
    verdict_->Expect(sequence.preemptions == record->preemptions,
                     "I15 preemptions are counted", "request ", record->id);
    const bool planned = std::any_of(
        plan.parts.begin(), plan.parts.end(),
        [&](const StepPart& part) { return part.sequence == &sequence; });
    if (planned) continue;
    verdict_->Expect(sequence.computed == 0,
                     "I9 who waits has nothing computed", record->id);
    for (const BlockTable& table : sequence.tables) {
      verdict_->Expect(table.num_entries() == 0, "I9 who waits has no blocks",
                       record->id);
    }
  }
}

// One that is in its own way may begin anew, once: alone in its model, in more
// slabs than its blocks need.
void Oracle::CheckGathered(Record* record) {
  int64_t needed = 0;
  for (size_t g = 0; g < record->blocks.size(); ++g) {
    const std::vector<int64_t>& table = record->blocks[g];
    const int64_t held = std::count_if(
        table.begin(), table.end(), [](int64_t offset) { return offset >= 0; });
    const int64_t per_slab =
        world_.slab_bytes / OwnerOf(*record, g).block_bytes;
    needed += (held + per_slab - 1) / per_slab;
  }
  verdict_->Expect(!std::exchange(record->gathered, true) &&
                       Of(*record).running == 1 &&
                       blocks_.UsedSlabs(record->model) > needed,
                   "I9 loses its blocks for no reason", "request ", record->id);
  ++counts_.gathered;
}

// Blocks are only added at the end, but for windows, which move in a commit.
void Oracle::ObserveGrowth(Record* record) {
  for (size_t g = 0; g < record->blocks.size(); ++g) {
    const std::vector<int64_t>& now = TableOf(*record, g).offsets();
    std::vector<int64_t>& before = record->blocks[g];
    if (!verdict_->Expect(
            now.size() >= before.size() &&
                std::equal(before.begin(), before.end(), now.begin()),
            "I1 a table changed by itself", "request ", record->id)) {
      return;
    }
    while (before.size() < now.size()) {
      blocks_.TakeFresh(now[before.size()], OwnerOf(*record, g));
      before.push_back(now[before.size()]);
    }
  }
}

void Oracle::ObserveParts(const StepPlan& plan) {
  for (const StepPart& part : plan.parts) {
    Record* const record = Find(part.sequence->id);
    if (!verdict_->Expect(record != nullptr && record->model >= 0,
                          "I6 nothing is computed after the end", "request ",
                          part.sequence->id)) {
      return;
    }
    verdict_->Expect(
        std::find(planned_.begin(), planned_.end(), record) == planned_.end(),
        "I11 one part for each sequence", "request ", record->id);
    planned_.push_back(record);
    if (!record->running) {
      record->sequence = part.sequence;
      ObserveAdmission(record);
      if (verdict_->broken()) return;
    }
    const int32_t end = record->computed + part.num_tokens;
    verdict_->Expect(part.num_tokens > 0 && end <= record->length(),
                     "I11 a part is of what is there", "request ", record->id);
    verdict_->Expect(
        part.logits_rows ==
            std::max(0, end - std::max(record->computed, record->next_row)),
        "I6 logits are used once", "request ", record->id, ", ",
        part.logits_rows, " rows");
    verdict_->Expect(part.sequence->tokens == record->tokens,
                     "I12 computes the tokens of the request", "request ",
                     record->id);
  }
}

void Oracle::ObserveAdmission(Record* record) {
  ModelRecord& its_model = Of(*record);
  admitted_.push_back(record);
  --its_model.waiting;
  ++its_model.running;
  record->running = true;
  record->computed = record->sequence->computed;
  CheckReuse(record);
  if (verdict_->broken()) return;
  const int64_t reused = record->computed / kBlockTokens;
  record->published = reused;
  counts_.hit_blocks += static_cast<uint64_t>(reused);
  for (size_t g = 0; g < record->blocks.size(); ++g) {
    const std::vector<int64_t>& offsets = TableOf(*record, g).offsets();
    for (size_t i = 0; i < offsets.size(); ++i) {
      if (static_cast<int64_t>(i) < reused) {
        blocks_.TakeShared(offsets[i], OwnerOf(*record, g));
      } else {
        blocks_.TakeFresh(offsets[i], OwnerOf(*record, g));
      }
      record->blocks[g].push_back(offsets[i]);
    }
  }
  CheckRoom(record);
  if (!std::exchange(record->admitted, true) &&
      world_.kind == WorldKind::kDuel) {
    tenant_service_[record->tenant == "a" ? 0 : 1] += record->length();
  }
}

// What the cache has is used, as far as logits are not needed of it, and of a
// scored request's prompt only: what follows that is written again.
void Oracle::CheckReuse(Record* record) {
  int32_t most = std::min(record->next_row, record->length() - 1);
  if (record->scores()) most = std::min(most, record->prompt_tokens);
  verdict_->Expect(record->computed % kBlockTokens == 0 &&
                       record->computed <= std::max(0, most),
                   "I6 reuses whole blocks, before the logits it needs",
                   "request ", record->id, ", ", record->computed);
  if (!record->shares_prefix) {
    verdict_->Expect(record->computed == 0, "I5 shares what it must not",
                     "request ", record->id);
    return;
  }
  int64_t known = 0;
  const auto all_known = [&] {
    for (size_t g = 0; g < record->blocks.size(); ++g) {
      if (!blocks_.Published(KeyOf(*record, g, known))) return false;
    }
    return true;
  };
  while (known < most / kBlockTokens && all_known()) ++known;
  verdict_->Expect(record->computed >= known * kBlockTokens,
                   "I4 the cache has more than was used", "request ",
                   record->id, ", ", record->computed, " tokens of ",
                   known * kBlockTokens);
}

// Whoever is let in can compute all it has been given; and after the third
// preemption, all that it will be.
void Oracle::CheckRoom(Record* record) {
  const int32_t tokens = record->to_admit();
  for (size_t g = 0; g < record->blocks.size(); ++g) {
    const int32_t window = Of(*record).model.groups[g].retention.window;
    int64_t needed = (tokens + kBlockTokens - 1) / kBlockTokens;
    if (window > 0) {
      const int64_t span = window - 1 + world_.scheduler.step_tokens;
      needed =
          std::min(needed, (span - 1 + kBlockTokens - 1) / kBlockTokens + 1);
    }
    verdict_->Expect(static_cast<int64_t>(record->blocks[g].size()) >= needed,
                     "I8 is let in on all of its prompt", "request ",
                     record->id, ", ", record->blocks[g].size(), " blocks of ",
                     needed);
  }
}

}  // namespace headcount::sim
