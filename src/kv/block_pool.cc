#include "kv/block_pool.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/checked.h"

namespace headcount {
namespace {

constexpr GroupId kNoGroup = -1;

}  // namespace

BlockRef& BlockRef::operator=(BlockRef&& other) noexcept {
  if (this == &other) return *this;
  Reset();
  pool_ = std::exchange(other.pool_, nullptr);
  slab_ = other.slab_;
  block_ = other.block_;
  return *this;
}

BlockRef BlockRef::Share() const {
  CHECK(pool_ != nullptr) << "no block is held";
  ++pool_->slabs_[static_cast<size_t>(slab_)]
        .ref_counts[static_cast<size_t>(block_)];
  return BlockRef(pool_, slab_, block_);
}

void BlockRef::Reset() {
  if (pool_ == nullptr) return;
  std::exchange(pool_, nullptr)->Unref(slab_, block_);
}

int64_t BlockRef::offset() const {
  CHECK(pool_ != nullptr) << "no block is held";
  const GroupId group = pool_->slabs_[static_cast<size_t>(slab_)].group;
  return slab_ * pool_->slab_bytes() + block_ * pool_->block_bytes(group);
}

int BlockRef::ref_count() const {
  CHECK(pool_ != nullptr) << "no block is held";
  return pool_->slabs_[static_cast<size_t>(slab_)]
      .ref_counts[static_cast<size_t>(block_)];
}

BlockPool::BlockPool(const BlockPoolOptions& options) : options_(options) {
  CHECK(options.capacity_bytes >= 0 && options.slab_bytes > 0)
      << "capacity " << options.capacity_bytes << ", slab "
      << options.slab_bytes;
  const auto num_slabs =
      CheckedCast<int>(options.capacity_bytes / options.slab_bytes);
  CHECK(num_slabs.has_value()) << "more than 2^31 slabs";
  slabs_.resize(static_cast<size_t>(*num_slabs));
  // The lowest slab is at the back, to be lent first.
  free_slabs_.reserve(slabs_.size());
  for (int slab = *num_slabs - 1; slab >= 0; --slab) {
    free_slabs_.push_back(slab);
  }
}

BlockPool::~BlockPool() {
  for (const Group& group : groups_) {
    CHECK(group.used_blocks == 0)
        << group.used_blocks << " blocks outlive their pool";
  }
}

absl::StatusOr<GroupId> BlockPool::AddGroup(int64_t block_bytes) {
  CHECK(block_bytes > 0) << "block of " << block_bytes << " bytes";
  if (block_bytes > options_.slab_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a KV block of this model has ", block_bytes,
        " bytes, but a slab of the pool only ", options_.slab_bytes,
        "; make the pool larger, or prune or quantise more heads"));
  }
  const auto blocks_per_slab =
      CheckedCast<int>(options_.slab_bytes / block_bytes);
  CHECK(blocks_per_slab.has_value()) << "more than 2^31 blocks in a slab";
  groups_.push_back({.block_bytes = block_bytes,
                     .blocks_per_slab = *blocks_per_slab,
                     .slabs = {}});
  return static_cast<GroupId>(groups_.size()) - 1;
}

std::vector<BlockRef> BlockPool::Allocate(GroupId group_id, int count) {
  CHECK(count >= 0) << count << " blocks";
  if (count > AvailableBlocks(group_id)) return {};
  Group& group = groups_[static_cast<size_t>(group_id)];
  std::vector<BlockRef> blocks;
  blocks.reserve(static_cast<size_t>(count));
  while (static_cast<int>(blocks.size()) < count) {
    const int slab_id = FullestSlab(group_id);
    Slab& slab = slabs_[static_cast<size_t>(slab_id)];
    while (!slab.free_blocks.empty() &&
           static_cast<int>(blocks.size()) < count) {
      const int block = slab.free_blocks.back();
      slab.free_blocks.pop_back();
      slab.ref_counts[static_cast<size_t>(block)] = 1;
      ++group.used_blocks;
      blocks.push_back(BlockRef(this, slab_id, block));
    }
  }
  return blocks;
}

int BlockPool::FullestSlab(GroupId group_id) {
  Group& group = groups_[static_cast<size_t>(group_id)];
  int fullest = -1;
  size_t fewest_free = 0;
  for (int slab_id : group.slabs) {
    const size_t num_free =
        slabs_[static_cast<size_t>(slab_id)].free_blocks.size();
    if (num_free == 0) continue;
    if (fullest >= 0 && num_free >= fewest_free) continue;
    fullest = slab_id;
    fewest_free = num_free;
  }
  if (fullest >= 0) return fullest;

  CHECK(!free_slabs_.empty()) << "group " << group_id << " is exhausted";
  const int slab_id = free_slabs_.back();
  free_slabs_.pop_back();
  Slab& slab = slabs_[static_cast<size_t>(slab_id)];
  slab.group = group_id;
  slab.ref_counts.assign(static_cast<size_t>(group.blocks_per_slab), 0);
  slab.free_blocks.clear();
  for (int block = group.blocks_per_slab - 1; block >= 0; --block) {
    slab.free_blocks.push_back(block);
  }
  group.slabs.push_back(slab_id);
  return slab_id;
}

void BlockPool::Unref(int slab_id, int block) {
  Slab& slab = slabs_[static_cast<size_t>(slab_id)];
  int& ref_count = slab.ref_counts[static_cast<size_t>(block)];
  CHECK(ref_count > 0) << "slab " << slab_id << ", block " << block;
  if (--ref_count > 0) return;
  Group& group = groups_[static_cast<size_t>(slab.group)];
  slab.free_blocks.push_back(block);
  --group.used_blocks;
  if (slab.free_blocks.size() < slab.ref_counts.size()) return;
  slab.group = kNoGroup;
  slab.free_blocks.clear();
  slab.ref_counts.clear();
  group.slabs.erase(std::find(group.slabs.begin(), group.slabs.end(), slab_id));
  free_slabs_.push_back(slab_id);
}

int64_t BlockPool::AvailableBlocks(GroupId group_id) const {
  const Group& group = groups_[static_cast<size_t>(group_id)];
  const auto slabs =
      static_cast<int64_t>(group.slabs.size() + free_slabs_.size());
  return slabs * group.blocks_per_slab - group.used_blocks;
}

int64_t BlockPool::TotalBlocks(GroupId group_id) const {
  return static_cast<int64_t>(slabs_.size()) *
         groups_[static_cast<size_t>(group_id)].blocks_per_slab;
}

int64_t BlockPool::block_bytes(GroupId group_id) const {
  return groups_[static_cast<size_t>(group_id)].block_bytes;
}

PoolBytes BlockPool::bytes() const {
  PoolBytes bytes;
  bytes.free = static_cast<int64_t>(free_slabs_.size()) * slab_bytes();
  bytes.reserved = capacity_bytes() % slab_bytes();
  for (const Group& group : groups_) {
    const auto slabs = static_cast<int64_t>(group.slabs.size());
    const int64_t blocks = slabs * group.blocks_per_slab;
    bytes.used += group.used_blocks * group.block_bytes;
    bytes.free += (blocks - group.used_blocks) * group.block_bytes;
    bytes.reserved += slabs * slab_bytes() - blocks * group.block_bytes;
  }
  return bytes;
}

int64_t BlockPool::used_bytes(GroupId group_id) const {
  const Group& group = groups_[static_cast<size_t>(group_id)];
  return group.used_blocks * group.block_bytes;
}

void BlockPool::CheckInvariants() const {
  const PoolBytes sum = bytes();
  CHECK(sum.used + sum.cached + sum.free + sum.reserved == capacity_bytes())
      << sum.used << " + " << sum.cached << " + " << sum.free << " + "
      << sum.reserved << " != " << capacity_bytes();

  std::vector<GroupId> owner(slabs_.size(), kNoGroup);
  std::vector<int64_t> used_blocks(groups_.size(), 0);
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (int slab_id : groups_[g].slabs) {
      CHECK(owner[static_cast<size_t>(slab_id)] == kNoGroup)
          << "slab " << slab_id << " is lent twice";
      owner[static_cast<size_t>(slab_id)] = static_cast<GroupId>(g);
    }
  }
  std::vector<int> times_free(slabs_.size(), 0);
  for (int slab_id : free_slabs_) ++times_free[static_cast<size_t>(slab_id)];
  for (size_t s = 0; s < slabs_.size(); ++s) {
    const Slab& slab = slabs_[s];
    CHECK(slab.group == owner[s]) << "slab " << s;
    CHECK(times_free[s] == (slab.group == kNoGroup ? 1 : 0)) << "slab " << s;
    if (slab.group != kNoGroup) {
      used_blocks[static_cast<size_t>(slab.group)] += CheckedUsedBlocks(slab);
    }
  }
  for (size_t g = 0; g < groups_.size(); ++g) {
    CHECK(used_blocks[g] == groups_[g].used_blocks) << "group " << g;
  }
}

int64_t BlockPool::CheckedUsedBlocks(const Slab& slab) const {
  const Group& group = groups_[static_cast<size_t>(slab.group)];
  const auto num_blocks = static_cast<size_t>(group.blocks_per_slab);
  CHECK(slab.ref_counts.size() == num_blocks);
  std::vector<int> times_free(num_blocks, 0);
  for (int block : slab.free_blocks) ++times_free[static_cast<size_t>(block)];
  int64_t used = 0;
  for (size_t block = 0; block < num_blocks; ++block) {
    const int ref_count = slab.ref_counts[block];
    CHECK(ref_count >= 0) << "block " << block;
    CHECK(times_free[block] == (ref_count == 0 ? 1 : 0)) << "block " << block;
    if (ref_count > 0) ++used;
  }
  CHECK(used > 0) << "an empty slab has an owner";
  return used;
}

}  // namespace headcount
