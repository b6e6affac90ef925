// What always holds between the calls of a Scheduler.
#include <algorithm>
#include <cstdint>
#include <map>

#include "base/check.h"
#include "engine/scheduler.h"
#include "heads/kv_geometry.h"

namespace headcount {

void Scheduler::CheckInvariants() const {
  pool_->CheckInvariants();
  cache_.CheckInvariants();
  CheckModels();
  CheckBlocks();
  size_t timed = 0;
  int64_t waiting_tokens = 0;
  int64_t waiting_bytes = 0;
  for (const auto& [id, sequence] : sequences_) {
    const ModelState& its_model = StateOf(*sequence);
    const bool waits = its_model.waiting.Contains(*sequence);
    CHECK(waits != (lane(its_model.lane).running.count(id) == 1)) << id;
    if (waits) waiting_tokens += sequence->length();
    if (waits) waiting_bytes += sequence->bytes;
    CHECK(sequence->computed < sequence->length()) << id;
    CHECK(sequence->next_logits < sequence->length()) << id;
    CHECK(sequence->length() <= sequence->max_kv_tokens) << id;
    CHECK(sequence->preemptions <= kMaxPreemptions) << id;
    if (sequence->deadline == absl::InfiniteFuture()) continue;
    CHECK(deadlines_.count({sequence->deadline, id}) == 1) << id;
    ++timed;
  }
  CHECK(timed == deadlines_.size()) << timed;
  CHECK(waiting_tokens == waiting_tokens_) << waiting_tokens;
  CHECK(waiting_bytes == waiting_bytes_) << waiting_bytes;
}

void Scheduler::CheckModels() const {
  int64_t live = 0;
  for (const auto& lane : lanes_) {
    if (lane == nullptr) continue;
    const auto running = static_cast<int64_t>(lane->running.size());
    CHECK(running <= lane->max_running) << running;
    int64_t in_models = 0;
    int64_t waiting = 0;
    for (const int model : lane->models) {
      state(model).waiting.CheckInvariants();
      in_models += state(model).running;
      waiting += state(model).waiting.size();
    }
    CHECK(running == in_models) << running;
    CHECK(lane->live == running + waiting) << lane->live;
    live += lane->live;
  }
  CHECK(live == static_cast<int64_t>(sequences_.size())) << live;
}

// Running sequences own all that is used in the pool: each block as often as it
// is referred to, and more than once only if it is published, and full.
void Scheduler::CheckBlocks() const {
  struct Owned {
    int owners = 0;
    int ref_count = 0;
  };
  std::map<int64_t, Owned> blocks;  // by offset
  int64_t used_bytes = 0;
  for (const auto& [id, sequence] : sequences_) {
    const ModelState& its_model = StateOf(*sequence);
    if (its_model.waiting.Contains(*sequence)) {
      CHECK(sequence->computed == 0) << id;
      for (const BlockTable& table : sequence->tables) {
        CHECK(table.num_blocks() == 0) << id;
      }
      continue;
    }
    CheckTables(*sequence);
    for (size_t i = 0; i < sequence->tables.size(); ++i) {
      const BlockTable& table = sequence->tables[i];
      for (int64_t j = 0; j < table.num_entries(); ++j) {
        if (table.IsHole(j)) continue;
        const BlockRef& block = table.block(j);
        CHECK(pool_->GroupAt(block.offset()) == its_model.pool.groups[i]);
        Owned& owned = blocks[block.offset()];
        if (owned.owners++ == 0) {
          used_bytes += its_model.model.groups[i].block_bytes;
        }
        owned.ref_count = block.ref_count();
        if (block.published()) {
          CHECK((j + 1) * kBlockTokens <= sequence->lasting_tokens()) << id;
        }
      }
    }
  }
  for (const auto& [offset, owned] : blocks) {
    CHECK(owned.owners == owned.ref_count) << offset;
    CHECK(owned.owners == 1 || pool_->IsPublished(offset)) << offset;
  }
  CHECK(used_bytes == pool_->bytes().used) << used_bytes;
}

// What was promised to a running sequence is there, and nothing that its window
// has left behind.
void Scheduler::CheckTables(const Sequence& sequence) const {
  const ModelState& its_model = StateOf(sequence);
  CHECK(sequence.HasRoomFor(sequence.computed)) << sequence.id;
  for (size_t i = 0; i < sequence.tables.size(); ++i) {
    const BlockTable& table = sequence.tables[i];
    const Retention& retention = its_model.model.groups[i].retention;
    // Whoever is let in can compute its prompt without waiting for memory, and
    // whoever has a reservation, all that it will.
    if (sequence.reserves || sequence.computed < sequence.prompt_tokens) {
      CHECK(MissingBlocks(sequence, i, TokensToAdmit(sequence)) == 0)
          << sequence.id;
    }
    CHECK(table.num_blocks() <= its_model.limits.most_blocks[i]) << sequence.id;
    CHECK(table.num_holes() ==
          std::max<int64_t>(
              0, (retention.FirstSeen(sequence.computed) - retention.sink)) /
              kBlockTokens)
        << sequence.id;
    for (int64_t entry = 0; entry < table.num_entries(); ++entry) {
      const bool hole =
          table.offsets()[static_cast<size_t>(entry)] == BlockTable::kHole;
      CHECK(hole == table.IsHole(entry)) << sequence.id;
    }
  }
}

}  // namespace headcount
