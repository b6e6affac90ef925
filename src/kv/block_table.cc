#include "kv/block_table.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount {

void BlockTable::Append(std::vector<BlockRef> blocks) {
  for (BlockRef& block : blocks) {
    offsets_.push_back(block.offset());
    blocks_.push_back(std::move(block));
  }
}

void BlockTable::Slide(int64_t first_token, int64_t num_tokens,
                       int64_t sink_tokens) {
  const int64_t sink = KvGeometry::BlocksFor(sink_tokens);
  CHECK(num_holes_ == 0 || first_hole_ == sink) << sink_tokens;
  first_hole_ = sink;
  const int64_t end = std::min(first_token / kBlockTokens, num_entries());
  while (first_hole_ + num_holes_ < end) {
    const auto entry = static_cast<size_t>(first_hole_ + num_holes_++);
    BlockRef block = std::move(blocks_[entry]);
    const int64_t offset = std::exchange(offsets_[entry], kHole);
    if (capacity_tokens() >= num_tokens) continue;
    blocks_.push_back(std::move(block));
    offsets_.push_back(offset);
  }
}

void BlockTable::Clear() {
  blocks_.clear();
  offsets_.clear();
  first_hole_ = 0;
  num_holes_ = 0;
}

const BlockRef& BlockTable::block(int64_t entry) const {
  CHECK(entry >= 0 && entry < num_entries() && !IsHole(entry)) << entry;
  return blocks_[static_cast<size_t>(entry)];
}

int64_t BlockTable::holes_end_token() const {
  return num_holes_ == 0 ? 0 : (first_hole_ + num_holes_) * kBlockTokens;
}

int64_t BlockTable::capacity_tokens() const {
  return num_entries() * kBlockTokens;
}

}  // namespace headcount
