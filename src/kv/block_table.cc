#include "kv/block_table.h"

#include <utility>

#include "heads/kv_geometry.h"

namespace headcount {

void BlockTable::Append(std::vector<BlockRef> blocks) {
  for (BlockRef& block : blocks) {
    offsets_.push_back(block.offset());
    blocks_.push_back(std::move(block));
  }
}

void BlockTable::Clear() {
  blocks_.clear();
  offsets_.clear();
}

int64_t BlockTable::capacity_tokens() const {
  return num_blocks() * kBlockTokens;
}

}  // namespace headcount
