// Which published block holds the K and V of which tokens, so that sequences
// which begin alike compute them once (automatic prefix caching; Kwon et al.
// 2023, arXiv:2309.06180, and Zheng et al. 2024, arXiv:2312.07104).
//
//   PrefixCache cache(&pool);
//   std::vector<BlockRef> hits = cache.Match(group, hashes);
//   ... compute what is missing, and when a block is full and written:
//   cache.Publish(group, hash, block);
//
// An entry belongs to one group, and so to one model as it is loaded: its
// weights, head layout and KV dtypes. The hash covers the salt and the tokens.
//
// Not thread-safe. The pool outlives it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "kv/block_pool.h"
#include "kv/prefix_hash.h"

namespace headcount {

class PrefixCache {
 public:
  explicit PrefixCache(BlockPool* pool) : pool_(pool) {}

  // References to the blocks of the first hashes, up to the first that is not
  // there.
  std::vector<BlockRef> Match(GroupId group,
                              absl::Span<const BlockHash> hashes);

  // Only once the block is full and all of it computed, after which nobody
  // writes to it. Does nothing if it is published, or if another block stands
  // for this hash.
  void Publish(GroupId group, const BlockHash& hash, const BlockRef& block);

  // Evicts until `count` blocks are available to `group`. False, with nothing
  // evicted, if that is not possible.
  bool MakeRoom(GroupId group, int64_t count);

  // Evicts all that is cached of the group.
  void Forget(GroupId group);

  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  uint64_t evictions() const { return evictions_; }

  // CHECK-fails where an invariant does not hold. Walks everything.
  void CheckInvariants() const;

 private:
  using Key = std::pair<GroupId, BlockHash>;

  void Evict(int64_t offset);

  BlockPool* const pool_;
  absl::flat_hash_map<Key, int64_t> blocks_;  // offsets
  absl::flat_hash_map<int64_t, Key> keys_;    // by offset
  uint64_t evictions_ = 0;
};

}  // namespace headcount
