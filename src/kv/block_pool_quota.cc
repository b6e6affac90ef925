// Who may have how much of a BlockPool, what goes first when room is needed,
// and what always holds.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include "base/check.h"
#include "kv/block_pool.h"

namespace headcount {

int64_t BlockPool::LendableSlabs(PoolModelId model) const {
  return member(model).ceiling_slabs - member(model).lent_slabs;
}

int64_t BlockPool::AvailableBlocks(GroupId id) const {
  const Group& to = group(id);
  const auto own = static_cast<int64_t>(to.slabs.size());
  const auto more = std::min(static_cast<int64_t>(free_slabs_.size()),
                             LendableSlabs(to.model));
  return (own + more) * to.blocks_per_slab - to.used_blocks - to.cached_blocks;
}

int64_t BlockPool::ReachableBlocks(GroupId id) const {
  const Group& to = group(id);
  int64_t own_slabs = 0;  // of the model's other groups
  int64_t others = 0;     // of other models
  std::vector<int64_t> borrowed;
  for (const Member& lender : members_) {
    borrowed.push_back(lender.lent_slabs - lender.floor_slabs);
  }
  for (const Slab& from : slabs_) {
    if (from.cached == 0 || from.used > 0 || from.group == id) continue;
    const PoolModelId owner = group(from.group).model;
    if (owner == to.model) {
      ++own_slabs;
    } else if (borrowed[static_cast<size_t>(owner)] > 0) {
      --borrowed[static_cast<size_t>(owner)];
      ++others;
    }
  }
  const auto free = static_cast<int64_t>(free_slabs_.size());
  const int64_t lendable = LendableSlabs(to.model);
  const int64_t more = std::min(free + others, lendable) + own_slabs;
  return (static_cast<int64_t>(to.slabs.size()) + more) * to.blocks_per_slab -
         to.used_blocks;
}

int64_t BlockPool::NeededSlabs(const PoolModel& model,
                               absl::Span<const int64_t> blocks) const {
  CHECK(blocks.size() == model.groups.size()) << blocks.size() << " counts";
  int64_t needed = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const Group& to = group(model.groups[i]);
    int64_t missing = blocks[i];
    for (const int id : to.slabs) {
      if (slab(id).used > 0) missing -= to.blocks_per_slab - slab(id).used;
    }
    if (missing > 0) {
      needed += (missing + to.blocks_per_slab - 1) / to.blocks_per_slab;
    }
  }
  return needed;
}

int64_t BlockPool::IdleSlabs(PoolModelId model) const {
  return std::count_if(slabs_.begin(), slabs_.end(), [&](const Slab& lent) {
    return lent.cached > 0 && lent.used == 0 &&
           group(lent.group).model == model;
  });
}

int64_t BlockPool::ReachableSlabs(
    PoolModelId id, absl::FunctionRef<int64_t(PoolModelId)> idle_slabs) const {
  int64_t others = static_cast<int64_t>(free_slabs_.size());
  for (PoolModelId other = 0; other < static_cast<int>(members_.size());
       ++other) {
    if (other == id || !OverFloor(other)) continue;
    const int64_t borrowed =
        member(other).lent_slabs - member(other).floor_slabs;
    others += std::min(borrowed, idle_slabs(other));
  }
  return std::min(others, LendableSlabs(id)) + IdleSlabs(id);
}

int64_t BlockPool::ReachableSlabs(PoolModelId id) const {
  return ReachableSlabs(id,
                        [&](PoolModelId other) { return IdleSlabs(other); });
}

int64_t BlockPool::ReachableSlabs(PoolModelId id,
                                  const std::set<int64_t>& kept) const {
  return ReachableSlabs(id, [&](PoolModelId other) {
    return member(other).lent_slabs -
           std::count_if(kept.begin(), kept.end(), [&](int64_t kept_slab) {
             const GroupId owner = slab(static_cast<int>(kept_slab)).group;
             return group(owner).model == other;
           });
  });
}

int64_t BlockPool::FloorSlabs(PoolModelId id) const {
  const Member& owner = member(id);
  if (owner.floor_slabs == 0) return -1;
  return owner.floor_slabs - (owner.lent_slabs - IdleSlabs(id));
}

int64_t BlockPool::SpareSlabs(const PoolModel& model) const {
  int64_t spare = member(model.id).lent_slabs - IdleSlabs(model.id);
  for (const GroupId id : model.groups) {
    const int64_t per_slab = group(id).blocks_per_slab;
    spare -= (group(id).used_blocks + per_slab - 1) / per_slab;
  }
  return spare;
}

int64_t BlockPool::BlocksBeside(PoolModelId beside, GroupId id) const {
  const Group& to = group(id);
  int64_t spare =
      static_cast<int64_t>(slabs_.size()) - member(beside).ceiling_slabs;
  for (const Member& other : members_) {
    if (&other != &member(beside)) spare -= other.lent_slabs;
  }
  if (spare < 0) return 0;
  return (static_cast<int64_t>(to.slabs.size()) + spare) * to.blocks_per_slab -
         to.used_blocks;
}

int64_t BlockPool::MostSlabs(PoolModelId id) const {
  auto slabs = static_cast<int64_t>(slabs_.size());
  for (const Member& other : members_) {
    if (&other != &member(id)) slabs -= other.floor_slabs;
  }
  return std::min(slabs, member(id).ceiling_slabs);
}

int64_t BlockPool::TotalBlocks(GroupId id) const {
  return MostSlabs(group(id).model) * group(id).blocks_per_slab;
}

std::vector<int64_t> BlockPool::EvictionChoice(GroupId id,
                                               int64_t count) const {
  const int victim = EvictedSlab(id);
  if (victim == -1) return {};
  const bool own = slab(victim).group == id;
  return CachedIn(victim, own ? count : std::numeric_limits<int64_t>::max());
}

int BlockPool::EvictedSlab(GroupId id) const {
  const PoolModelId model = group(id).model;
  int idle = -1;
  for (size_t i = 0; i < slabs_.size(); ++i) {
    const Slab& from = slabs_[i];
    if (from.cached == 0 || from.used > 0) continue;
    const PoolModelId owner = group(from.group).model;
    if (owner != model && (AtCeiling(model) || !OverFloor(owner))) continue;
    if (idle == -1 || from.last_use < slab(idle).last_use) {
      idle = static_cast<int>(i);
    }
  }
  if (idle != -1) return idle;
  int emptiest = -1;
  for (const int i : group(id).slabs) {
    if (slab(i).cached == 0) continue;
    if (emptiest == -1 || slab(i).used < slab(emptiest).used) emptiest = i;
  }
  return emptiest;
}

// The last ones first: those before them are read more often, where one prefix
// begins another.
std::vector<int64_t> BlockPool::CachedIn(int slab_id, int64_t count) const {
  const Slab& from = slab(slab_id);
  std::vector<int64_t> offsets;
  for (int block = static_cast<int>(from.ref_counts.size()) - 1;
       block >= 0 && static_cast<int64_t>(offsets.size()) < count; --block) {
    const auto i = static_cast<size_t>(block);
    if (from.ref_counts[i] > 0 || from.published[i] == 0) continue;
    offsets.push_back(slab_id * slab_bytes() + block * block_bytes(from.group));
  }
  return offsets;
}

bool BlockPool::OverFloor(PoolModelId model) const {
  return member(model).lent_slabs > member(model).floor_slabs;
}

bool BlockPool::BelowFloor(PoolModelId model) const {
  return member(model).lent_slabs < member(model).floor_slabs;
}

bool BlockPool::AtCeiling(PoolModelId model) const {
  return LendableSlabs(model) == 0;
}

int64_t BlockPool::block_bytes(GroupId id) const {
  return group(id).block_bytes;
}

GroupId BlockPool::GroupAt(int64_t offset) const {
  return slab(static_cast<int>(offset / slab_bytes())).group;
}

PoolBytes BlockPool::bytes() const {
  PoolBytes bytes;
  bytes.reserved = capacity_bytes() % slab_bytes();
  for (const Group& lent : groups_) {
    const auto slabs = static_cast<int64_t>(lent.slabs.size());
    const int64_t blocks = slabs * lent.blocks_per_slab;
    bytes.used += lent.used_blocks * lent.block_bytes;
    bytes.cached += lent.cached_blocks * lent.block_bytes;
    bytes.fragmented +=
        (blocks - lent.used_blocks - lent.cached_blocks) * lent.block_bytes;
    bytes.reserved += slabs * slab_bytes() - blocks * lent.block_bytes;
  }
  bytes.free = static_cast<int64_t>(free_slabs_.size()) * slab_bytes() +
               bytes.fragmented;
  return bytes;
}

PoolModelBytes BlockPool::bytes(PoolModelId id) const {
  PoolModelBytes bytes{.lent = member(id).lent_slabs * slab_bytes(),
                       .floor = member(id).floor_slabs * slab_bytes(),
                       .ceiling = member(id).ceiling_slabs * slab_bytes()};
  for (const Group& lent : groups_) {
    if (lent.model != id) continue;
    bytes.used += lent.used_blocks * lent.block_bytes;
    bytes.cached += lent.cached_blocks * lent.block_bytes;
  }
  return bytes;
}

void BlockPool::CheckInvariants() const {
  const PoolBytes sum = bytes();
  CHECK(sum.used + sum.cached + sum.free + sum.reserved == capacity_bytes())
      << sum.used << " + " << sum.cached << " + " << sum.free << " + "
      << sum.reserved << " != " << capacity_bytes();

  std::vector<GroupId> owner(slabs_.size(), -1);
  std::vector<int64_t> lent(members_.size(), 0);
  for (size_t g = 0; g < groups_.size(); ++g) {
    int64_t used = 0;
    int64_t cached = 0;
    for (const int slab_id : groups_[g].slabs) {
      GroupId& owned = owner[static_cast<size_t>(slab_id)];
      CHECK(owned == -1) << "slab " << slab_id << " is lent twice";
      owned = static_cast<GroupId>(g);
      used += slab(slab_id).used;
      cached += slab(slab_id).cached;
      ++lent[static_cast<size_t>(groups_[g].model)];
    }
    CHECK(used == groups_[g].used_blocks) << "group " << g;
    CHECK(cached == groups_[g].cached_blocks) << "group " << g;
  }
  for (size_t m = 0; m < members_.size(); ++m) {
    CHECK(lent[m] == members_[m].lent_slabs) << "model " << m;
    CHECK(lent[m] <= members_[m].ceiling_slabs) << "model " << m;
  }
  std::vector<int> times_free(slabs_.size(), 0);
  for (const int slab_id : free_slabs_) {
    ++times_free[static_cast<size_t>(slab_id)];
  }
  int64_t published = 0;
  for (size_t s = 0; s < slabs_.size(); ++s) {
    CHECK(slabs_[s].group == owner[s]) << "slab " << s;
    CHECK(times_free[s] == (owner[s] == -1 ? 1 : 0)) << "slab " << s;
    if (owner[s] != -1) CheckSlab(slabs_[s]);
    published += std::count(slabs_[s].published.begin(),
                            slabs_[s].published.end(), uint8_t{1});
  }
  CHECK(published == published_blocks_) << published;
}

void BlockPool::CheckSlab(const Slab& lent) const {
  const auto num_blocks =
      static_cast<size_t>(group(lent.group).blocks_per_slab);
  CHECK(lent.ref_counts.size() == num_blocks);
  CHECK(lent.published.size() == num_blocks);
  std::vector<int> times_free(num_blocks, 0);
  for (const int block : lent.free_blocks) {
    ++times_free[static_cast<size_t>(block)];
  }
  int used = 0;
  int cached = 0;
  for (size_t block = 0; block < num_blocks; ++block) {
    const int ref_count = lent.ref_counts[block];
    CHECK(ref_count >= 0) << "block " << block;
    if (ref_count > 0) {
      ++used;
    } else if (lent.published[block] != 0) {
      ++cached;
    }
    const bool free = ref_count == 0 && lent.published[block] == 0;
    CHECK(times_free[block] == (free ? 1 : 0)) << "block " << block;
  }
  CHECK(used == lent.used && cached == lent.cached);
  CHECK(used + cached > 0) << "an empty slab has an owner";
}

}  // namespace headcount
