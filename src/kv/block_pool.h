// One arena of KV memory, shared by every model: cut into slabs of one size,
// slabs lent to a (model, KvGroup) and cut into blocks of that group's size.
//
//   BlockPool pool({.capacity_bytes = 1 << 30, .slab_bytes = 4 << 20});
//   absl::StatusOr<PoolModel> model = pool.AddModel({}, {block_bytes});
//   const GroupId group = model->groups[0];
//   std::vector<BlockRef> blocks = pool.Allocate(group, 3);  // all or nothing
//   use(blocks[0].offset());                    // bytes from the arena's start
//   // scope exit gives the blocks back; an empty slab goes back to the pool
//
// A block is used while a BlockRef holds it, cached while only the prefix cache
// knows it (see Publish), else free. A model that holds more slabs than its
// floor has borrowed them; what is cached in those goes when others need room,
// and the Scheduler takes the rest back from sequences.
//
// Knows ids and counts, never a pointer to device memory.
//
// Invariants (CheckInvariants; run by tests after every step, and when idle):
//   used + cached + free + reserved == capacity bytes;
//   a block is free exactly when no BlockRef holds it and it is not published,
//   and is then on its slab's free list exactly once;
//   a slab without used or cached blocks has no owner;
//   no model holds more slabs than its ceiling.
//
// Not thread-safe: only the engine's step thread calls it. The pool outlives
// its BlockRefs.
#pragma once

#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace headcount {

class BlockPool;

using GroupId = int;
using PoolModelId = int;

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
  // Bytes from the start of the arena; tells blocks apart. CHECKs that a block
  // is held.
  int64_t offset() const;
  int ref_count() const;
  bool published() const;

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

// What of the pool a model can count on, and the most that it may hold. Both
// are met in whole slabs, the floor rounded up and the ceiling down.
struct PoolQuota {
  int64_t floor_bytes = 0;
  int64_t ceiling_bytes = 0;  // 0: the whole pool
};

struct PoolModel {
  PoolModelId id = 0;
  std::vector<GroupId> groups;
};

// Bytes by state; the first four sum to capacity.
struct PoolBytes {
  int64_t used = 0;      // in blocks that a sequence holds
  int64_t cached = 0;    // in blocks that only the prefix cache holds
  int64_t free = 0;      // in free slabs and in free blocks of lent slabs
  int64_t reserved = 0;  // ends of slabs and of the arena that hold no block
  // What of `free` lies in lent slabs, where only their group can have it.
  int64_t fragmented = 0;
};

struct PoolModelBytes {
  int64_t used = 0;
  int64_t cached = 0;
  int64_t lent = 0;  // whole slabs
  int64_t floor = 0;
  int64_t ceiling = 0;
};

class BlockPool {
 public:
  explicit BlockPool(const BlockPoolOptions& options);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool();  // CHECKs that no BlockRef is left

  // Makes room in the books for a model with a group for each of block_bytes.
  // InvalidArgument, with needed and available, when a block is larger than a
  // slab or the ceiling below the floor; ResourceExhausted when the floors of
  // all models together, or a slab for each of their groups, are more than the
  // pool. Ids of removed models and groups are used again.
  absl::StatusOr<PoolModel> AddModel(const PoolQuota& quota,
                                     absl::Span<const int64_t> block_bytes);
  // CHECKs that none of its blocks is used or cached.
  void RemoveModel(const PoolModel& model);

  // `count` blocks, or none of them if fewer can be had. Takes from the fullest
  // slabs first, so that the others empty and go back.
  std::vector<BlockRef> Allocate(GroupId group, int count);

  // Blocks that Allocate could hand to `group` now / after evictions as well.
  int64_t AvailableBlocks(GroupId group) const;
  int64_t ReachableBlocks(GroupId group) const;
  // The same for all groups of a model at once, which compete for slabs: those
  // that it needs for so many blocks more of each, [group], besides its slabs
  // with used blocks; those that it can have, after evictions of its own too;
  // and those that its floor promises, negative if it has none or is over it.
  int64_t NeededSlabs(const PoolModel& model,
                      absl::Span<const int64_t> blocks) const;
  int64_t ReachableSlabs(PoolModelId model) const;
  // The same if blocks of other models were used in slabs `kept` only, which
  // count from the arena's start.
  int64_t ReachableSlabs(PoolModelId model,
                         const std::set<int64_t>& kept) const;
  int64_t FloorSlabs(PoolModelId model) const;
  // How many fewer its used blocks would need if they lay side by side.
  int64_t SpareSlabs(const PoolModel& model) const;
  // Blocks that the group can have so that the other model `beside` can still
  // come to its ceiling.
  int64_t BlocksBeside(PoolModelId beside, GroupId group) const;
  // Slabs that the model may count on when none of its sequences runs: those
  // under its ceiling and not under another's floor.
  int64_t MostSlabs(PoolModelId model) const;
  int64_t TotalBlocks(GroupId group) const;  // in MostSlabs

  // From now on the block stays, cached, when its last reference goes. Once.
  void Publish(const BlockRef& block);
  // A reference to the published block at `offset`.
  BlockRef Revive(int64_t offset);
  // Undoes Publish: a cached block becomes free.
  void Unpublish(int64_t offset);
  // Offsets of the cached blocks to unpublish first to give `group` up to
  // `count` blocks more; empty if that is not possible. They are those of
  // - the slab, of the model or of one that holds more than its floor, that
  //   has cached blocks only and was in use least recently: all of them, or so
  //   many as needed if it is the group's own;
  // - or else as many as needed of the group's slab with the fewest used.
  std::vector<int64_t> EvictionChoice(GroupId group, int64_t count) const;

  bool OverFloor(PoolModelId model) const;
  bool AtCeiling(PoolModelId model) const;
  // Whether a slab more would still be within the model's floor.
  bool BelowFloor(PoolModelId model) const;

  int64_t capacity_bytes() const { return options_.capacity_bytes; }
  int64_t slab_bytes() const { return options_.slab_bytes; }
  int64_t block_bytes(GroupId group) const;
  PoolBytes bytes() const;
  PoolModelBytes bytes(PoolModelId model) const;
  int64_t published_blocks() const { return published_blocks_; }
  bool IsPublished(int64_t offset) const;
  GroupId GroupAt(int64_t offset) const;

  // CHECK-fails where an invariant does not hold. Walks every block.
  void CheckInvariants() const;

 private:
  friend class BlockRef;
  struct Slab {
    GroupId group = -1;  // -1: in free_slabs_
    std::vector<int> free_blocks;
    std::vector<int> ref_counts;     // [block]
    std::vector<uint8_t> published;  // [block]
    int used = 0;
    int cached = 0;
    uint64_t last_use = 0;  // of a published block, on use_clock_
  };
  struct Group {
    PoolModelId model = -1;  // -1: a removed one
    int64_t block_bytes = 0;
    int blocks_per_slab = 0;
    int64_t used_blocks = 0;
    int64_t cached_blocks = 0;
    std::vector<int> slabs;  // lent to this group
  };
  struct Member {
    bool exists = false;
    int64_t floor_slabs = 0;
    int64_t ceiling_slabs = 0;
    int64_t lent_slabs = 0;
  };
  struct Place {
    int slab = 0;
    int block = 0;
  };

  Slab& slab(int id) { return slabs_[static_cast<size_t>(id)]; }
  const Slab& slab(int id) const { return slabs_[static_cast<size_t>(id)]; }
  Group& group(GroupId id) { return groups_[static_cast<size_t>(id)]; }
  const Group& group(GroupId id) const {
    return groups_[static_cast<size_t>(id)];
  }
  Member& member(PoolModelId id) { return members_[static_cast<size_t>(id)]; }
  const Member& member(PoolModelId id) const {
    return members_[static_cast<size_t>(id)];
  }

  absl::Status CheckFits(const Member& member,
                         absl::Span<const int64_t> block_bytes) const;
  // The slab of `group` with the fewest free blocks, but at least one; a free
  // slab is lent if there is none.
  int FullestSlab(GroupId group);
  void LendSlab(GroupId group, int slab);
  void Unref(int slab, int block);
  void Free(int slab, int block);  // neither used nor cached any more
  // Slabs of the model in which blocks are cached and none is used.
  int64_t IdleSlabs(PoolModelId model) const;
  // ReachableSlabs, given those of other models that are idle.
  int64_t ReachableSlabs(
      PoolModelId model,
      absl::FunctionRef<int64_t(PoolModelId)> idle_slabs) const;
  // Slabs that the model may still be lent.
  int64_t LendableSlabs(PoolModelId model) const;
  Place PlaceOf(int64_t offset) const;
  std::vector<int64_t> CachedIn(int slab, int64_t count) const;
  int EvictedSlab(GroupId group) const;  // -1: none
  // CHECKs one lent slab.
  void CheckSlab(const Slab& slab) const;

  BlockPoolOptions options_;
  std::vector<Slab> slabs_;
  std::vector<int> free_slabs_;
  std::vector<Group> groups_;
  std::vector<Member> members_;
  int64_t published_blocks_ = 0;
  uint64_t use_clock_ = 0;
};

}  // namespace headcount
