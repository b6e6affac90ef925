// Who is let in, and what the prefix cache spares it.
#include <algorithm>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/scheduler.h"
#include "heads/kv_geometry.h"

namespace headcount {

void Scheduler::AdmitWaiting(Lane* lane, Budget* budget, StepPlan* plan) {
  while (static_cast<int32_t>(lane->running.size()) < lane->max_running &&
         budget->tokens > 0 && budget->rows > 0) {
    Sequence* const sequence = NextWaiting(*lane);
    if (sequence == nullptr) return;
    if (Admit(sequence)) {
      AddPart(sequence, Chunk(*sequence, *budget), budget, plan);
    } else {
      StateOf(*sequence).short_of_blocks = true;
    }
  }
}

// Of all models of the lane that may run one more: those first that are below
// their floor and stay within it, since what was taken back for them is theirs;
// then by priority, then age. Null if there is none, or none that was not
// refused in this step.
Sequence* Scheduler::NextWaiting(const Lane& lane) const {
  using Turn = std::tuple<bool, int64_t, RequestId>;
  Sequence* next = nullptr;
  Turn its_turn;
  for (const int model : lane.models) {
    const ModelState& its_model = state(model);
    const int32_t most = its_model.model.max_concurrent;
    if (its_model.short_of_blocks) continue;
    if (most > 0 && its_model.running >= most) continue;
    Sequence* const first = its_model.waiting.Next();
    if (first == nullptr) continue;
    const bool owed =
        pool_->BelowFloor(its_model.pool.id) && WithinFloor(*first);
    const Turn turn(!owed, -int64_t{first->priority}, first->id);
    if (next != nullptr && its_turn < turn) continue;
    next = first;
    its_turn = turn;
  }
  return next;
}

bool Scheduler::Admit(Sequence* sequence) {
  Reuse(sequence);
  // Its model's floor is its own, whoever else waits.
  if (!WithinFloor(*sequence) &&
      (OlderIsShortOfBlocks(*sequence) ||
       (BelowWatermark(*sequence) && !NothingRuns()))) {
    ReleaseBlocks(sequence);
    return false;
  }
  if (!Allocate(sequence, TokensToAdmit(*sequence))) {
    ReleaseBlocks(sequence);
    return false;
  }
  ModelState& its_model = StateOf(*sequence);
  its_model.waiting.Erase(sequence);
  ++its_model.running;
  lane(its_model.lane).running.emplace(sequence->id, sequence);
  waiting_tokens_ -= sequence->length();
  waiting_bytes_ -= sequence->bytes;
  if (!std::exchange(sequence->admitted, true)) CountAdmission(sequence);
  return true;
}

// Takes what the prefix cache has of the sequence's first tokens. Who shares
// has one group (AddModel).
void Scheduler::Reuse(Sequence* sequence) {
  if (!sequence->shares_prefix) return;
  const int64_t blocks = sequence->reusable_tokens() / kBlockTokens;
  ExtendHashes(sequence, blocks);
  std::vector<BlockRef> found = cache_.Match(
      StateOf(*sequence).pool.groups.front(),
      absl::MakeConstSpan(sequence->hashes).first(static_cast<size_t>(blocks)));
  sequence->published_blocks = static_cast<int64_t>(found.size());
  sequence->computed =
      static_cast<int32_t>(sequence->published_blocks * kBlockTokens);
  sequence->tables.front().Append(std::move(found));
}

void Scheduler::CountAdmission(Sequence* sequence) {
  ModelState& its_model = StateOf(*sequence);
  its_model.waiting.Charge(*sequence, sequence->length());
  its_model.waiting.Settle();
  if (!sequence->shares_prefix) return;
  sequence->cached_tokens = sequence->computed;
  its_model.prefix_tokens += static_cast<uint64_t>(sequence->prompt_tokens);
  its_model.prefix_hit_tokens += static_cast<uint64_t>(sequence->computed);
}

// Lets others find the blocks that are full and computed by now.
void Scheduler::Publish(Sequence* sequence) {
  if (!sequence->shares_prefix) return;
  const GroupId group = StateOf(*sequence).pool.groups.front();
  const int64_t blocks = sequence->lasting_tokens() / kBlockTokens;
  ExtendHashes(sequence, blocks);
  for (int64_t i = sequence->published_blocks; i < blocks; ++i) {
    cache_.Publish(group, sequence->hashes[static_cast<size_t>(i)],
                   sequence->tables.front().block(i));
  }
  sequence->published_blocks = std::max(sequence->published_blocks, blocks);
}

void Scheduler::ExtendHashes(Sequence* sequence, int64_t blocks) {
  std::vector<BlockHash>& hashes = sequence->hashes;
  while (static_cast<int64_t>(hashes.size()) < blocks) {
    const BlockHash previous =
        hashes.empty()
            ? hasher_.Root(absl::StrCat(sequence->tenant, std::string(1, '\0'),
                                        sequence->cache_salt))
            : hashes.back();
    hashes.push_back(hasher_.Next(
        previous, absl::MakeConstSpan(sequence->tokens)
                      .subspan(hashes.size() * kBlockTokens, kBlockTokens)));
  }
}

// Whether somebody older, of another model, waits for blocks that this one
// would take.
bool Scheduler::OlderIsShortOfBlocks(const Sequence& sequence) const {
  const std::vector<GroupId>& groups = StateOf(sequence).pool.groups;
  for (const auto& other : models_) {
    if (other == nullptr || !other->short_of_blocks) continue;
    const Sequence* const first = other->waiting.Next();
    if (first == nullptr || first->id >= sequence.id) continue;
    for (size_t i = 0; i < groups.size(); ++i) {
      if (pool_->BlocksBeside(other->pool.id, groups[i]) <
          MissingBlocks(sequence, i, TokensToAdmit(sequence))) {
        return true;
      }
    }
  }
  return false;
}

// Whether admission would leave less than the watermark.
bool Scheduler::BelowWatermark(const Sequence& sequence) const {
  const std::vector<GroupId>& groups = StateOf(sequence).pool.groups;
  for (size_t i = 0; i < groups.size(); ++i) {
    const int64_t left = pool_->ReachableBlocks(groups[i]) -
                         MissingBlocks(sequence, i, TokensToAdmit(sequence));
    if (left <
        WatermarkBlocks(options_.watermark, pool_->TotalBlocks(groups[i]))) {
      return true;
    }
  }
  return false;
}

// Whether its model stays within its floor when it is admitted.
bool Scheduler::WithinFloor(const Sequence& sequence) const {
  const PoolModel& pool = StateOf(sequence).pool;
  const int64_t promised = pool_->FloorSlabs(pool.id);
  return promised >= 0 &&
         pool_->NeededSlabs(pool,
                            MissingBlocks(sequence, TokensToAdmit(sequence))) <=
             promised;
}

bool Scheduler::NothingRuns() const {
  return std::all_of(lanes_.begin(), lanes_.end(), [](const auto& lane) {
    return lane == nullptr || lane->running.empty();
  });
}

int32_t Scheduler::TokensToAdmit(const Sequence& sequence) const {
  return sequence.reserves ? sequence.max_kv_tokens : sequence.length();
}

}  // namespace headcount
