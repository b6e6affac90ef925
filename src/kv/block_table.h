// The blocks of one sequence in one KvGroup, in token order.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/block_pool.h"

namespace headcount {

// Movable. Not thread-safe.
class BlockTable {
 public:
  // Takes the blocks over; they hold the next tokens.
  void Append(std::vector<BlockRef> blocks);
  void Clear();

  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  // Tokens that the blocks have room for.
  int64_t capacity_tokens() const;
  // [num_blocks] byte offsets in the arena. Valid until the table changes.
  const std::vector<int64_t>& offsets() const { return offsets_; }

 private:
  std::vector<BlockRef> blocks_;
  std::vector<int64_t> offsets_;
};

}  // namespace headcount
