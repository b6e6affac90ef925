#include "kv/prefix_cache.h"

#include <algorithm>

#include "base/check.h"

namespace headcount {

std::vector<BlockRef> PrefixCache::Match(GroupId group,
                                         absl::Span<const BlockHash> hashes) {
  std::vector<BlockRef> found;
  for (const BlockHash& hash : hashes) {
    const auto entry = blocks_.find(Key(group, hash));
    if (entry == blocks_.end()) break;
    found.push_back(pool_->Revive(entry->second));
  }
  return found;
}

void PrefixCache::Publish(GroupId group, const BlockHash& hash,
                          const BlockRef& block) {
  if (block.published()) return;
  const int64_t offset = block.offset();
  if (!blocks_.emplace(Key(group, hash), offset).second) return;
  CHECK(keys_.emplace(offset, Key(group, hash)).second) << offset;
  pool_->Publish(block);
}

bool PrefixCache::MakeRoom(GroupId group, int64_t count) {
  if (pool_->AvailableBlocks(group) >= count) return true;
  if (pool_->ReachableBlocks(group) < count) return false;
  int64_t missing = count - pool_->AvailableBlocks(group);
  while (missing > 0) {
    const std::vector<int64_t> choice = pool_->EvictionChoice(group, missing);
    CHECK(!choice.empty()) << missing << " blocks cannot be reached";
    for (const int64_t offset : choice) Evict(offset);
    missing = count - pool_->AvailableBlocks(group);
  }
  return true;
}

void PrefixCache::Forget(GroupId group) {
  std::vector<int64_t> offsets;
  for (const auto& [key, offset] : blocks_) {
    if (key.first == group) offsets.push_back(offset);
  }
  // The map has an order of its own in each run, and the pool would keep it.
  std::sort(offsets.begin(), offsets.end());
  for (const int64_t offset : offsets) Evict(offset);
}

void PrefixCache::Evict(int64_t offset) {
  const auto key = keys_.find(offset);
  CHECK(key != keys_.end()) << offset;
  blocks_.erase(key->second);
  keys_.erase(key);
  pool_->Unpublish(offset);
  ++evictions_;
}

void PrefixCache::CheckInvariants() const {
  CHECK(blocks_.size() == keys_.size());
  CHECK(num_blocks() == pool_->published_blocks()) << num_blocks();
  for (const auto& [key, offset] : blocks_) {
    CHECK(pool_->IsPublished(offset)) << offset;
    CHECK(keys_.at(offset) == key) << offset;
    CHECK(pool_->GroupAt(offset) == key.first) << offset;
  }
}

}  // namespace headcount
