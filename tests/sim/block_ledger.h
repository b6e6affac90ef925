// The simulator's own account of the pool: who holds which block, and which
// blocks are published as what. Kept from what sequences show, and compared
// with what the pool says.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kv/block_pool.h"
#include "tests/sim/verdict.h"

namespace headcount::sim {

// A group of a model, as blocks know it.
struct BlockOwner {
  int model = 0;
  int group = 0;
  int64_t block_bytes = 0;
  bool operator==(const BlockOwner&) const = default;
};

class BlockLedger {
 public:
  BlockLedger(const BlockPool* pool, Verdict* verdict);

  // A sequence has a block more: one that was free; or one that is published.
  void TakeFresh(int64_t offset, const BlockOwner& owner);
  void TakeShared(int64_t offset, const BlockOwner& owner);
  void Release(int64_t offset);

  // The block is full, computed and may be shared; `key` says what is in it.
  void Publish(uint64_t key, int64_t offset);
  // Whether some block is published as that. Finds out about evictions.
  bool Published(uint64_t key);
  bool IsPublished(int64_t offset) const { return at(offset).key != 0; }
  // All that is cached of the model is to go.
  void ForgetModel(int model);

  int owners(int64_t offset) const { return at(offset).owners; }
  int64_t used_bytes() const { return used_bytes_; }
  // Slabs in which the model has used blocks.
  int64_t UsedSlabs(int model) const;

  // Cheap: sums.
  void CheckUsed();
  // Walks all that is published.
  void CheckPublished(uint64_t evictions);

 private:
  struct Block {
    int owners = 0;
    uint64_t key = 0;  // 0: not published
    BlockOwner owner;
  };
  struct Slab {
    int used = 0;
    BlockOwner owner;  // of those
  };

  static size_t Index(int64_t offset) {
    return static_cast<size_t>(offset / 128);
  }
  Block& at(int64_t offset) { return blocks_[Index(offset)]; }
  const Block& at(int64_t offset) const { return blocks_[Index(offset)]; }
  void Use(int64_t offset);
  // Whether the pool still says so; forgets it otherwise.
  bool StillPublished(int64_t offset);

  const BlockPool* const pool_;
  Verdict* const verdict_;
  std::vector<Block> blocks_;  // by offset / 128
  std::vector<Slab> slabs_;
  absl::flat_hash_map<uint64_t, int64_t> offsets_;  // by key
  int64_t used_bytes_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace headcount::sim
