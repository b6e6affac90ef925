#include "kv/block_pool.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/checked.h"
#include "base/human.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

constexpr int kNone = -1;

// Two sizes that are not the same, as texts that are not either.
std::pair<std::string, std::string> Apart(int64_t one, int64_t other) {
  std::string first = FormatByteSize(one);
  std::string second = FormatByteSize(other);
  if (first != second) return {std::move(first), std::move(second)};
  return {absl::StrCat(one, " bytes"), absl::StrCat(other, " bytes")};
}

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
  ++pool_->slab(slab_).ref_counts[static_cast<size_t>(block_)];
  return BlockRef(pool_, slab_, block_);
}

void BlockRef::Reset() {
  if (pool_ == nullptr) return;
  std::exchange(pool_, nullptr)->Unref(slab_, block_);
}

int64_t BlockRef::offset() const {
  CHECK(pool_ != nullptr) << "no block is held";
  return slab_ * pool_->slab_bytes() +
         block_ * pool_->block_bytes(pool_->slab(slab_).group);
}

int BlockRef::ref_count() const {
  CHECK(pool_ != nullptr) << "no block is held";
  return pool_->slab(slab_).ref_counts[static_cast<size_t>(block_)];
}

bool BlockRef::published() const {
  CHECK(pool_ != nullptr) << "no block is held";
  return pool_->slab(slab_).published[static_cast<size_t>(block_)] != 0;
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

absl::StatusOr<PoolModel> BlockPool::AddModel(
    const PoolQuota& quota, absl::Span<const int64_t> block_bytes) {
  CHECK(quota.floor_bytes >= 0 && quota.ceiling_bytes >= 0);
  const auto num_slabs = static_cast<int64_t>(slabs_.size());
  Member added{.exists = true,
               .floor_slabs = quota.floor_bytes / slab_bytes() +
                              (quota.floor_bytes % slab_bytes() > 0 ? 1 : 0),
               .ceiling_slabs = num_slabs};
  if (quota.ceiling_bytes > 0) {
    added.ceiling_slabs =
        std::min(num_slabs, quota.ceiling_bytes / slab_bytes());
  }
  const absl::Status fits = CheckFits(added, block_bytes);
  if (!fits.ok()) return fits;

  PoolModel model;
  while (model.id < static_cast<int>(members_.size()) &&
         member(model.id).exists) {
    ++model.id;
  }
  if (model.id == static_cast<int>(members_.size())) members_.emplace_back();
  member(model.id) = added;
  GroupId id = 0;
  for (const int64_t bytes : block_bytes) {
    while (id < static_cast<int>(groups_.size()) && group(id).model != kNone) {
      ++id;
    }
    if (id == static_cast<int>(groups_.size())) groups_.emplace_back();
    group(id) = {
        .model = model.id,
        .block_bytes = bytes,
        .blocks_per_slab = static_cast<int>(BlocksPerSlab(slab_bytes(), bytes)),
        .slabs = {}};
    model.groups.push_back(id);
  }
  return model;
}

absl::Status BlockPool::CheckFits(const Member& added,
                                  absl::Span<const int64_t> block_bytes) const {
  for (const int64_t bytes : block_bytes) {
    CHECK(bytes > 0) << "block of " << bytes << " bytes";
    if (bytes > slab_bytes()) {
      const auto [piece, slab_size] = Apart(bytes, slab_bytes());
      return absl::InvalidArgumentError(absl::StrCat(
          "kv_pool: ", kBlockTokens, " tokens of this model need a piece of ",
          piece, ", but the pool is lent in pieces of ", slab_size,
          "; make kv_pool (--kv-pool) larger, or prune or quantise more "
          "heads"));
    }
    CHECK(CheckedCast<int>(slab_bytes() / bytes).has_value());
  }
  const auto groups = static_cast<int64_t>(block_bytes.size());
  const auto slabs = static_cast<int64_t>(slabs_.size());
  const int64_t needed = std::max(added.floor_slabs, groups);
  const bool has_floor = added.floor_slabs > groups;
  bool any_floor = has_floor;
  int64_t promised = 0;  // to the others
  for (int id = 0; id < static_cast<int>(members_.size()); ++id) {
    const auto theirs = static_cast<int64_t>(
        std::count_if(groups_.begin(), groups_.end(),
                      [&](const Group& other) { return other.model == id; }));
    promised += std::max(member(id).floor_slabs, theirs);
    any_floor = any_floor || member(id).floor_slabs > theirs;
  }
  const auto size_of = [this](int64_t count) {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
    return CheckedMul(count, slab_bytes()).value_or(kMost);
  };
  if (needed + promised > slabs) {
    const auto [capacity, all] =
        Apart(capacity_bytes(), size_of(needed + promised));
    return absl::ResourceExhaustedError(absl::StrCat(
        "kv_pool: ", capacity, " is too small: this model needs ",
        promised > 0 ? FormatByteSize(size_of(needed)) : all,
        has_floor ? " for its kv_cache.quota.min" : "",
        promised > 0 ? absl::StrCat(", and all together ", all) : "",
        "; make kv_pool (--kv-pool) larger",
        any_floor ? ", or kv_cache.quota.min smaller" : ""));
  }
  if (added.ceiling_slabs < needed) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv_cache.quota.max: too small: the pool is lent in pieces of ",
        FormatByteSize(slab_bytes()), ", of which it allows ",
        FormatByteSize(size_of(added.ceiling_slabs)), ", but this model needs ",
        FormatByteSize(size_of(needed)),
        has_floor ? " for its kv_cache.quota.min" : ""));
  }
  return absl::OkStatus();
}

void BlockPool::RemoveModel(const PoolModel& model) {
  CHECK(member(model.id).exists) << model.id;
  CHECK(member(model.id).lent_slabs == 0)
      << member(model.id).lent_slabs << " slabs are still lent";
  for (const GroupId id : model.groups) {
    CHECK(group(id).model == model.id) << id;
    group(id) = {};
  }
  member(model.id) = {};
}

std::vector<BlockRef> BlockPool::Allocate(GroupId group_id, int count) {
  CHECK(count >= 0) << count << " blocks";
  if (count > AvailableBlocks(group_id)) return {};
  std::vector<BlockRef> blocks;
  blocks.reserve(static_cast<size_t>(count));
  while (static_cast<int>(blocks.size()) < count) {
    const int slab_id = FullestSlab(group_id);
    Slab& from = slab(slab_id);
    while (!from.free_blocks.empty() &&
           static_cast<int>(blocks.size()) < count) {
      const int block = from.free_blocks.back();
      from.free_blocks.pop_back();
      from.ref_counts[static_cast<size_t>(block)] = 1;
      ++from.used;
      ++group(group_id).used_blocks;
      blocks.push_back(BlockRef(this, slab_id, block));
    }
  }
  return blocks;
}

int BlockPool::FullestSlab(GroupId group_id) {
  int fullest = kNone;
  size_t fewest_free = 0;
  for (int slab_id : group(group_id).slabs) {
    const size_t num_free = slab(slab_id).free_blocks.size();
    if (num_free == 0) continue;
    if (fullest >= 0 && num_free >= fewest_free) continue;
    fullest = slab_id;
    fewest_free = num_free;
  }
  if (fullest >= 0) return fullest;
  CHECK(!free_slabs_.empty()) << "group " << group_id << " is exhausted";
  const int slab_id = free_slabs_.back();
  free_slabs_.pop_back();
  LendSlab(group_id, slab_id);
  return slab_id;
}

void BlockPool::LendSlab(GroupId group_id, int slab_id) {
  Group& to = group(group_id);
  Slab& lent = slab(slab_id);
  const auto num_blocks = static_cast<size_t>(to.blocks_per_slab);
  lent.group = group_id;
  lent.ref_counts.assign(num_blocks, 0);
  lent.published.assign(num_blocks, 0);
  for (int block = to.blocks_per_slab - 1; block >= 0; --block) {
    lent.free_blocks.push_back(block);
  }
  to.slabs.push_back(slab_id);
  ++member(to.model).lent_slabs;
}

void BlockPool::Unref(int slab_id, int block) {
  Slab& from = slab(slab_id);
  int& ref_count = from.ref_counts[static_cast<size_t>(block)];
  CHECK(ref_count > 0) << "slab " << slab_id << ", block " << block;
  if (--ref_count > 0) return;
  --from.used;
  --group(from.group).used_blocks;
  if (from.published[static_cast<size_t>(block)] == 0) {
    Free(slab_id, block);
    return;
  }
  ++from.cached;
  ++group(from.group).cached_blocks;
  from.last_use = ++use_clock_;
}

void BlockPool::Free(int slab_id, int block) {
  Slab& from = slab(slab_id);
  from.free_blocks.push_back(block);
  if (from.used + from.cached > 0) return;
  std::vector<int>& slabs = group(from.group).slabs;
  slabs.erase(std::find(slabs.begin(), slabs.end(), slab_id));
  --member(group(from.group).model).lent_slabs;
  from = {};
  free_slabs_.push_back(slab_id);
}

void BlockPool::Publish(const BlockRef& block) {
  CHECK(block.pool_ == this && !block.published());
  slab(block.slab_).published[static_cast<size_t>(block.block_)] = 1;
  ++published_blocks_;
}

BlockRef BlockPool::Revive(int64_t offset) {
  CHECK(IsPublished(offset)) << offset;
  const Place place = PlaceOf(offset);
  Slab& from = slab(place.slab);
  from.last_use = ++use_clock_;
  if (++from.ref_counts[static_cast<size_t>(place.block)] == 1) {
    --from.cached;
    ++from.used;
    --group(from.group).cached_blocks;
    ++group(from.group).used_blocks;
  }
  return BlockRef(this, place.slab, place.block);
}

void BlockPool::Unpublish(int64_t offset) {
  CHECK(IsPublished(offset)) << offset;
  const Place place = PlaceOf(offset);
  Slab& from = slab(place.slab);
  from.published[static_cast<size_t>(place.block)] = 0;
  --published_blocks_;
  if (from.ref_counts[static_cast<size_t>(place.block)] > 0) return;
  --from.cached;
  --group(from.group).cached_blocks;
  Free(place.slab, place.block);
}

BlockPool::Place BlockPool::PlaceOf(int64_t offset) const {
  const auto slab_id = static_cast<int>(offset / slab_bytes());
  const int64_t bytes = block_bytes(slab(slab_id).group);
  CHECK(offset % slab_bytes() % bytes == 0) << offset;
  return {slab_id, static_cast<int>(offset % slab_bytes() / bytes)};
}

bool BlockPool::IsPublished(int64_t offset) const {
  if (slab(static_cast<int>(offset / slab_bytes())).group == kNone) {
    return false;
  }
  const Place place = PlaceOf(offset);
  return slab(place.slab).published[static_cast<size_t>(place.block)] != 0;
}

}  // namespace headcount
