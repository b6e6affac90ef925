// The blocks of sequences: how they get them, lose them to others, and give
// back what has left a window.
#include <algorithm>

#include "base/check.h"
#include "engine/scheduler.h"
#include "heads/kv_geometry.h"

namespace headcount {

// Gives the sequence blocks for `num_tokens`, or as many of them as it may hold
// at once; or leaves it as it is.
bool Scheduler::Allocate(Sequence* sequence, int32_t num_tokens) {
  if (HasBlocksFor(*sequence, num_tokens)) return true;
  const std::vector<GroupId>& groups = StateOf(*sequence).pool.groups;
  std::vector<std::vector<BlockRef>> blocks;
  for (size_t i = 0; i < groups.size(); ++i) {
    const int64_t missing = MissingBlocks(*sequence, i, num_tokens);
    if (!cache_.MakeRoom(groups[i], missing)) return false;
    blocks.push_back(pool_->Allocate(groups[i], static_cast<int>(missing)));
    CHECK(static_cast<int64_t>(blocks.back().size()) == missing) << missing;
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    sequence->tables[i].Append(std::move(blocks[i]));
  }
  return true;
}

std::vector<int64_t> Scheduler::MissingBlocks(const Sequence& sequence,
                                              int32_t num_tokens) const {
  std::vector<int64_t> missing;
  for (size_t i = 0; i < sequence.tables.size(); ++i) {
    missing.push_back(MissingBlocks(sequence, i, num_tokens));
  }
  return missing;
}

int64_t Scheduler::MissingBlocks(const Sequence& sequence, size_t group,
                                 int32_t num_tokens) const {
  const BlockTable& table = sequence.tables[group];
  const int64_t missing =
      KvGeometry::BlocksFor(num_tokens) - table.num_entries();
  return std::clamp<int64_t>(
      missing, 0,
      StateOf(sequence).limits.most_blocks[group] - table.num_blocks());
}

bool Scheduler::HasBlocksFor(const Sequence& sequence,
                             int32_t num_tokens) const {
  for (size_t i = 0; i < sequence.tables.size(); ++i) {
    if (MissingBlocks(sequence, i, num_tokens) > 0) return false;
  }
  return true;
}

// Preempts what has borrowed from the floor that the sequence needs, if that
// lets it in.
void Scheduler::TakeBackFloor(const Sequence& waiting) {
  const PoolModel& pool = StateOf(waiting).pool;
  if (!WithinFloor(waiting)) return;
  const int64_t needed =
      pool_->NeededSlabs(pool, MissingBlocks(waiting, TokensToAdmit(waiting)));
  if (pool_->ReachableSlabs(pool.id) >= needed) return;
  if (pool_->ReachableSlabs(pool.id, KeptSlabs(waiting.model)) < needed) return;
  while (pool_->ReachableSlabs(pool.id) < needed) {
    Preempt(VictimFor(waiting.model, /*own_too=*/false));
  }
}

// The slabs that would still have used blocks if all were preempted that the
// model may take a floor back from.
std::set<int64_t> Scheduler::KeptSlabs(int model) const {
  const Sequence* const oldest = OldestRunning();
  std::set<int64_t> kept;
  for (const auto& lane : lanes_) {
    if (lane == nullptr) continue;
    for (const auto& [id, sequence] : lane->running) {
      if (sequence != oldest && !sequence->reserves &&
          sequence->model != model) {
        continue;
      }
      for (const BlockTable& table : sequence->tables) {
        for (int64_t i = table.num_holes(); i < table.num_entries(); ++i) {
          kept.insert(table.block(i).offset() / pool_->slab_bytes());
        }
      }
    }
  }
  return kept;
}

const Sequence* Scheduler::OldestRunning() const {
  const Sequence* oldest = nullptr;
  for (const auto& lane : lanes_) {
    if (lane == nullptr || lane->running.empty()) continue;
    const Sequence* const first = lane->running.begin()->second;
    if (oldest == nullptr || first->id < oldest->id) oldest = first;
  }
  return oldest;
}

// Whom to preempt so that a running sequence of the model can go on, or null.
Sequence* Scheduler::VictimFor(int model) const {
  if (pool_->BelowFloor(state(model).pool.id)) {
    Sequence* const borrower = VictimFor(model, /*own_too=*/false);
    if (borrower != nullptr) return borrower;
  }
  return VictimFor(model, /*own_too=*/true);
}

// The newest of the lowest priority that runs, holds blocks which the model can
// have, and may be preempted.
Sequence* Scheduler::VictimFor(int model, bool own_too) const {
  const PoolModelId taker = state(model).pool.id;
  const Sequence* const oldest = OldestRunning();
  Sequence* victim = nullptr;
  for (const auto& lane : lanes_) {
    if (lane == nullptr) continue;
    for (const auto& [id, sequence] : lane->running) {
      if (sequence == oldest || sequence->tables.empty()) continue;
      if (sequence->reserves) continue;
      const PoolModelId holder = StateOf(*sequence).pool.id;
      if (holder == taker
              ? !own_too
              : pool_->AtCeiling(taker) || !pool_->OverFloor(holder)) {
        continue;
      }
      if (victim == nullptr || sequence->priority < victim->priority ||
          (sequence->priority == victim->priority && id > victim->id)) {
        victim = sequence;
      }
    }
  }
  return victim;
}

// Whether the sequence is all that its model runs, and its blocks lie in more
// slabs than they need: those that shared these slabs have ended. What it
// lacks for one group may then be in slabs of another.
bool Scheduler::IsScattered(const Sequence& sequence) const {
  const ModelState& its_model = StateOf(sequence);
  return its_model.running == 1 && pool_->SpareSlabs(its_model.pool) > 0;
}

// Lets it begin anew, side by side, with blocks for all that it can become, so
// that this does not happen to it again.
void Scheduler::Gather(Sequence* sequence) {
  sequence->reserves = true;
  Requeue(sequence);
}

void Scheduler::Preempt(Sequence* sequence) {
  sequence->reserves |= ++sequence->preemptions >= kMaxPreemptions;
  ++preemptions_;
  ++StateOf(*sequence).preemptions;
  Requeue(sequence);
}

void Scheduler::Requeue(Sequence* sequence) {
  ModelState& its_model = StateOf(*sequence);
  ReleaseBlocks(sequence);
  lane(its_model.lane).running.erase(sequence->id);
  --its_model.running;
  its_model.waiting.Push(sequence);
  waiting_tokens_ += sequence->length();
  waiting_bytes_ += sequence->bytes;
}

void Scheduler::ReleaseBlocks(Sequence* sequence) {
  for (BlockTable& table : sequence->tables) table.Clear();
  sequence->computed = 0;
  sequence->published_blocks = 0;
}

bool Scheduler::HoldsWindows(const Sequence& sequence) const {
  const SchedulerModel& model = StateOf(sequence).model;
  for (size_t i = 0; i < sequence.tables.size(); ++i) {
    const Retention& retention = model.groups[i].retention;
    if (retention.full()) continue;
    if (sequence.tables[i].holes_end_token() >
        retention.FirstSeen(sequence.computed)) {
      return false;
    }
  }
  return true;
}

// Gives back what the sequence's next token does not see.
void Scheduler::SlideWindows(Sequence* sequence) {
  const SchedulerModel& model = StateOf(*sequence).model;
  for (size_t i = 0; i < sequence->tables.size(); ++i) {
    const Retention& retention = model.groups[i].retention;
    if (retention.full()) continue;
    sequence->tables[i].Slide(retention.FirstSeen(sequence->computed),
                              TokensToAdmit(*sequence), retention.sink);
  }
}

// From the blocks in use, in which a shared one counts once: all of their room
// but what sequences have not filled, which none shares.
void Scheduler::CountKvTokens(SchedulerStats* stats) const {
  std::vector<int64_t> unfilled(models_.size());  // [model] tokens times bytes
  for (const auto& lane : lanes_) {
    if (lane == nullptr) continue;
    for (const auto& [id, sequence] : lane->running) {
      const auto model = static_cast<size_t>(sequence->model);
      const std::vector<SchedulerGroup>& groups = models_[model]->model.groups;
      if (groups.empty()) stats->models[model].kv_tokens += sequence->computed;
      for (size_t i = 0; i < groups.size(); ++i) {
        unfilled[model] +=
            groups[i].block_bytes *
            (sequence->tables[i].capacity_tokens() - sequence->computed);
      }
    }
  }
  for (size_t i = 0; i < models_.size(); ++i) {
    if (models_[i] == nullptr) continue;
    int64_t block_bytes = 0;
    for (const SchedulerGroup& group : models_[i]->model.groups) {
      block_bytes += group.block_bytes;
    }
    if (block_bytes == 0) continue;
    SchedulerStats::PerModel& model = stats->models[i];
    model.kv_tokens =
        (model.pool.used * kBlockTokens - unfilled[i]) / block_bytes;
  }
}

}  // namespace headcount
