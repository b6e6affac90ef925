// The blocks of one sequence in one KvGroup, in token order: entry i has room
// for tokens from i * kBlockTokens on. Where the group has a window, the first
// entries behind the sink become holes as it moves on; the others keep their
// places.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/block_pool.h"

namespace headcount {

// Movable. Not thread-safe.
class BlockTable {
 public:
  static constexpr int64_t kHole = -1;  // in offsets()

  // Takes the blocks over; they hold the next tokens.
  void Append(std::vector<BlockRef> blocks);
  // Makes holes of entries wholly before `first_token`, which nobody reads any
  // more, but for those of the first `sink_tokens`, always the same number.
  // Their blocks move to the end, until there is room for `num_tokens`; the
  // rest goes back to the pool.
  void Slide(int64_t first_token, int64_t num_tokens, int64_t sink_tokens = 0);
  void Clear();

  int64_t num_entries() const { return static_cast<int64_t>(blocks_.size()); }
  int64_t num_holes() const { return num_holes_; }
  bool IsHole(int64_t entry) const {
    return entry >= first_hole_ && entry < first_hole_ + num_holes_;
  }
  // Of the tokens that were given back; 0: none were.
  int64_t holes_end_token() const;
  int64_t num_blocks() const { return num_entries() - num_holes_; }  // held
  // CHECKs that the entry is there and no hole.
  const BlockRef& block(int64_t entry) const;
  // Tokens that the entries have room for, holes included.
  int64_t capacity_tokens() const;
  // [num_entries] byte offsets in the arena, or kHole. Valid until the table
  // changes.
  const std::vector<int64_t>& offsets() const { return offsets_; }

 private:
  std::vector<BlockRef> blocks_;  // [entry]
  std::vector<int64_t> offsets_;
  int64_t first_hole_ = 0;
  int64_t num_holes_ = 0;  // one after the other
};

}  // namespace headcount
