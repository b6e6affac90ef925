#include "tests/sim/block_ledger.h"

#include <algorithm>

namespace headcount::sim {

BlockLedger::BlockLedger(const BlockPool* pool, Verdict* verdict)
    : pool_(pool),
      verdict_(verdict),
      blocks_(Index(pool->capacity_bytes())),
      slabs_(static_cast<size_t>(pool->capacity_bytes() / pool->slab_bytes())) {
}

void BlockLedger::TakeFresh(int64_t offset, const BlockOwner& owner) {
  Block& block = at(offset);
  if (!verdict_->Expect(block.owners == 0, "I3 a block that is used was given",
                        "offset ", offset)) {
    return;
  }
  const GroupId group = pool_->GroupAt(offset);
  if (!verdict_->Expect(
          group >= 0 && pool_->block_bytes(group) == owner.block_bytes,
          "I5 a block of another size", "offset ", offset)) {
    return;
  }
  verdict_->Expect(!pool_->IsPublished(offset),
                   "I3 a published block was given to be written", "offset ",
                   offset);
  if (block.key != 0) StillPublished(offset);
  block.owner = owner;
  Use(offset);
}

void BlockLedger::TakeShared(int64_t offset, const BlockOwner& owner) {
  Block& block = at(offset);
  if (!verdict_->Expect(block.key != 0 && block.owner == owner,
                        "I4 a block was shared that nobody published",
                        "offset ", offset)) {
    return;
  }
  Use(offset);
}

void BlockLedger::Use(int64_t offset) {
  Block& block = at(offset);
  if (block.owners++ > 0) return;
  used_bytes_ += block.owner.block_bytes;
  Slab& slab = slabs_[static_cast<size_t>(offset / pool_->slab_bytes())];
  if (slab.used++ == 0) slab.owner = block.owner;
  verdict_->Expect(slab.owner == block.owner, "I5 a slab with two owners",
                   "offset ", offset);
}

void BlockLedger::Release(int64_t offset) {
  Block& block = at(offset);
  if (!verdict_->Expect(block.owners > 0, "I1 a block was released twice",
                        "offset ", offset)) {
    return;
  }
  if (--block.owners > 0) return;
  used_bytes_ -= block.owner.block_bytes;
  --slabs_[static_cast<size_t>(offset / pool_->slab_bytes())].used;
}

void BlockLedger::Publish(uint64_t key, int64_t offset) {
  Block& block = at(offset);
  if (block.key != 0 || Published(key)) return;
  block.key = key;
  offsets_[key] = offset;
  verdict_->Expect(pool_->IsPublished(offset),
                   "I4 a full block was not published", "offset ", offset);
}

bool BlockLedger::Published(uint64_t key) {
  const auto entry = offsets_.find(key);
  return entry != offsets_.end() && StillPublished(entry->second);
}

bool BlockLedger::StillPublished(int64_t offset) {
  Block& block = at(offset);
  const GroupId group = pool_->GroupAt(offset);
  // A slab that went to others may be cut otherwise, where IsPublished knows no
  // such offset.
  if (group >= 0 && pool_->block_bytes(group) == block.owner.block_bytes &&
      pool_->IsPublished(offset)) {
    return true;
  }
  verdict_->Expect(block.owners == 0, "I4 a used block was evicted", "offset ",
                   offset);
  offsets_.erase(block.key);
  block.key = 0;
  ++evictions_;
  return false;
}

void BlockLedger::ForgetModel(int model) {
  for (Block& block : blocks_) {
    if (block.key == 0 || block.owner.model != model) continue;
    offsets_.erase(block.key);
    block.key = 0;
    ++evictions_;
  }
}

int64_t BlockLedger::UsedSlabs(int model) const {
  return std::count_if(slabs_.begin(), slabs_.end(), [&](const Slab& slab) {
    return slab.used > 0 && slab.owner.model == model;
  });
}

void BlockLedger::CheckUsed() {
  verdict_->Expect(pool_->bytes().used == used_bytes_,
                   "I1 what is used is what sequences hold",
                   pool_->bytes().used, " bytes, ", used_bytes_, " held");
}

void BlockLedger::CheckPublished(uint64_t evictions) {
  int64_t published = 0;
  int64_t cached_bytes = 0;
  int64_t empty_bytes = 0;
  std::vector<bool> occupied(slabs_.size());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const auto offset = static_cast<int64_t>(i) * 128;
    const bool still = blocks_[i].key != 0 && StillPublished(offset);
    if (still) ++published;
    if (still && blocks_[i].owners == 0) {
      cached_bytes += blocks_[i].owner.block_bytes;
    }
    if (still || blocks_[i].owners > 0) {
      occupied[static_cast<size_t>(offset / pool_->slab_bytes())] = true;
    }
  }
  for (size_t s = 0; s < slabs_.size(); ++s) {
    const int64_t offset = static_cast<int64_t>(s) * pool_->slab_bytes();
    verdict_->Expect(occupied[s] == (pool_->GroupAt(offset) >= 0),
                     "I2 a slab is lent if and only if something is in it",
                     "slab ", s);
    if (!occupied[s]) empty_bytes += pool_->slab_bytes();
  }
  const PoolBytes bytes = pool_->bytes();
  verdict_->Expect(published == pool_->published_blocks(),
                   "I4 the pool has published what it should",
                   pool_->published_blocks(), ", should be ", published);
  verdict_->Expect(bytes.cached == cached_bytes,
                   "I1 cached is what is published and unused", bytes.cached,
                   ", should be ", cached_bytes);
  verdict_->Expect(bytes.used + bytes.cached + bytes.free + bytes.reserved ==
                       pool_->capacity_bytes(),
                   "I1 states of bytes sum to the pool", bytes.free, " free");
  verdict_->Expect(bytes.free - bytes.fragmented == empty_bytes,
                   "I2 free slabs are those with nothing in them", bytes.free);
  verdict_->Expect(evictions == evictions_, "I15 evictions", evictions,
                   ", seen ", evictions_);
}

}  // namespace headcount::sim
