// One arena of KV memory, shared by every model: cut into slabs of one size,
// slabs lent to a (model, KvGroup) and cut into blocks of that group's size.
//
//   BlockPool pool({.capacity_bytes = 1 << 30, .slab_bytes = 4 << 20});
//   absl::StatusOr<GroupId> group = pool.AddGroup(geometry.block_bytes());
//   std::vector<BlockRef> blocks = pool.Allocate(*group, 3);  // all or nothing
//   use(blocks[0].offset());                    // bytes from the arena's start
//   // scope exit gives the blocks back; an empty slab goes back to the pool
//
// Knows ids and counts, never a pointer to device memory.
//
// Invariants (CheckInvariants; run by tests after every step, and when idle):
//   used + cached + free + reserved == capacity bytes;
//   a block is free exactly when no BlockRef holds it, and is then on its
//   slab's free list exactly once; a slab without used blocks has no owner.
//
// Not thread-safe: only the engine's step thread calls it. The pool outlives
// its BlockRefs.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace headcount {

class BlockPool;

using GroupId = int;

// A counted reference to one block. Moving hands the reference over; Share()
// makes another, so that the cost is visible.
class BlockRef {
 public:
  BlockRef() = default;
  BlockRef(BlockRef&& other) noexcept { *this = std::move(other); }
  BlockRef& operator=(BlockRef&& other) noexcept;
  ~BlockRef() { Reset(); }

  BlockRef Share() const;
  void Reset();

  explicit operator bool() const { return pool_ != nullptr; }
  // Bytes from the start of the arena. CHECKs that a block is held.
  int64_t offset() const;
  int ref_count() const;

 private:
  friend class BlockPool;
  BlockRef(BlockPool* pool, int slab, int block)
      : pool_(pool), slab_(slab), block_(block) {}

  BlockPool* pool_ = nullptr;
  int slab_ = 0;
  int block_ = 0;
};

struct BlockPoolOptions {
  int64_t capacity_bytes = 0;
  int64_t slab_bytes = 0;  // see SlabBytes in heads/kv_geometry.h
};

// Bytes by state; the four sum to capacity.
struct PoolBytes {
  int64_t used = 0;      // in blocks that a sequence holds
  int64_t cached = 0;    // in blocks that only the prefix cache holds
  int64_t free = 0;      // in free slabs and in free blocks of lent slabs
  int64_t reserved = 0;  // ends of slabs and of the arena that hold no block
};

class BlockPool {
 public:
  explicit BlockPool(const BlockPoolOptions& options);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool();  // CHECKs that no BlockRef is left

  // Makes room in the books for one KvGroup of a model. InvalidArgument, with
  // both sizes, when a block is larger than a slab.
  absl::StatusOr<GroupId> AddGroup(int64_t block_bytes);

  // `count` blocks, or none of them if fewer can be had. Takes from the fullest
  // slabs first, so that the others empty and go back.
  std::vector<BlockRef> Allocate(GroupId group, int count);

  // Blocks that Allocate could hand to `group` now / from an empty pool.
  int64_t AvailableBlocks(GroupId group) const;
  int64_t TotalBlocks(GroupId group) const;

  int64_t capacity_bytes() const { return options_.capacity_bytes; }
  int64_t slab_bytes() const { return options_.slab_bytes; }
  int64_t block_bytes(GroupId group) const;
  PoolBytes bytes() const;
  // Bytes in blocks that sequences of `group` hold.
  int64_t used_bytes(GroupId group) const;

  // CHECK-fails where an invariant does not hold. Walks every block.
  void CheckInvariants() const;

 private:
  friend class BlockRef;
  struct Slab {
    GroupId group = -1;  // -1: in free_slabs_
    std::vector<int> free_blocks;
    std::vector<int> ref_counts;  // [block]
  };
  struct Group {
    int64_t block_bytes = 0;
    int blocks_per_slab = 0;
    int64_t used_blocks = 0;
    std::vector<int> slabs;  // lent to this group
  };

  // The slab of `group` with the fewest free blocks, but at least one; a free
  // slab is lent if there is none.
  int FullestSlab(GroupId group);
  void Unref(int slab, int block);
  // CHECKs one lent slab; returns its used blocks.
  int64_t CheckedUsedBlocks(const Slab& slab) const;

  BlockPoolOptions options_;
  std::vector<Slab> slabs_;
  std::vector<int> free_slabs_;
  std::vector<Group> groups_;
};

}  // namespace headcount
