// What always holds between the calls of a Scheduler.
#include <cstdint>
#include <set>

#include "base/check.h"
#include "engine/scheduler.h"
#include "heads/kv_geometry.h"

namespace headcount {

void Scheduler::CheckInvariants() const {
  pool_->CheckInvariants();
  CheckBlocks();
  size_t live = 0;
  size_t timed = 0;
  int64_t waiting_tokens = 0;
  for (const ModelState& state : models_) {
    CHECK(static_cast<int32_t>(state.running.size()) <= state.max_running);
    for (const auto& [id, sequence] : state.waiting) {
      waiting_tokens += sequence->length();
    }
    live += state.waiting.size() + state.running.size();
  }
  for (const auto& [id, sequence] : sequences_) {
    const ModelState& state = models_[static_cast<size_t>(sequence->model)];
    CHECK(state.waiting.count(id) + state.running.count(id) == 1) << id;
    CHECK(sequence->computed < sequence->length()) << id;
    CHECK(sequence->next_logits < sequence->length()) << id;
    CHECK(sequence->length() <= sequence->max_kv_tokens) << id;
    CHECK(sequence->preemptions <= kMaxPreemptions) << id;
    if (sequence->deadline == absl::InfiniteFuture()) continue;
    CHECK(deadlines_.count({sequence->deadline, id}) == 1) << id;
    ++timed;
  }
  CHECK(live == sequences_.size()) << live;
  CHECK(timed == deadlines_.size()) << timed;
  CHECK(waiting_tokens == waiting_tokens_) << waiting_tokens;
}

// Running sequences own all that is used in the pool, each block once.
void Scheduler::CheckBlocks() const {
  int64_t owned_bytes = 0;
  std::set<int64_t> offsets;
  for (const ModelState& state : models_) {
    for (const auto& [id, sequence] : state.waiting) {
      CHECK(sequence->computed == 0) << id;
      for (const BlockTable& table : sequence->tables) {
        CHECK(table.num_blocks() == 0) << id;
      }
    }
    for (const auto& [id, sequence] : state.running) {
      CheckTables(*sequence);
      for (size_t i = 0; i < sequence->tables.size(); ++i) {
        const BlockTable& table = sequence->tables[i];
        owned_bytes +=
            table.num_blocks() * pool_->block_bytes(state.model.groups[i].id);
        for (const int64_t offset : table.offsets()) {
          if (offset == BlockTable::kHole) continue;
          CHECK(offsets.insert(offset).second) << id << " shares a block";
        }
      }
    }
  }
  CHECK(owned_bytes == pool_->bytes().used) << owned_bytes;
}

// What was promised to a running sequence is there, and nothing that its window
// has left behind.
void Scheduler::CheckTables(const Sequence& sequence) const {
  const ModelState& state = models_[static_cast<size_t>(sequence.model)];
  CHECK(sequence.HasRoomFor(sequence.computed)) << sequence.id;
  for (size_t i = 0; i < sequence.tables.size(); ++i) {
    const BlockTable& table = sequence.tables[i];
    const Retention& retention = state.model.groups[i].retention;
    // Whoever is let in can compute its prompt without waiting for memory, and
    // whoever has a reservation, all that it will.
    if (sequence.preemptions >= kMaxPreemptions ||
        sequence.computed < sequence.prompt_tokens) {
      CHECK(MissingBlocks(sequence, i, TokensToAdmit(sequence)) == 0)
          << sequence.id;
    }
    CHECK(table.num_blocks() <= state.most_blocks[i]) << sequence.id;
    CHECK(table.num_holes() ==
          retention.FirstSeen(sequence.computed) / kBlockTokens)
        << sequence.id;
    for (int64_t entry = 0; entry < table.num_entries(); ++entry) {
      const bool hole =
          table.offsets()[static_cast<size_t>(entry)] == BlockTable::kHole;
      CHECK(hole == (entry < table.num_holes())) << sequence.id;
    }
  }
}

}  // namespace headcount
