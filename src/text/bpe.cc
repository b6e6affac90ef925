#include "text/bpe.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "base/check.h"

namespace headcount {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
constexpr uint32_t kNoMerge = std::numeric_limits<uint32_t>::max();

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 |
         static_cast<uint32_t>(right);
}

}  // namespace

Bpe::Bpe(absl::Span<const BpeMerge> merges) {
  merges_.reserve(merges.size());
  for (const BpeMerge& merge : merges) {
    CHECK(merge.rank < kNoMerge);
    merges_[PairKey(merge.left, merge.right)] = {merge.rank, merge.result};
  }
}

void Bpe::Rank(Scratch& scratch, uint32_t index) const {
  Scratch::Symbol& symbol = scratch.symbols_[index];
  symbol.rank = kNoMerge;
  if (symbol.next == kNone) return;
  const auto found =
      merges_.find(PairKey(symbol.id, scratch.symbols_[symbol.next].id));
  if (found == merges_.end()) return;
  symbol.rank = found->second.rank;
  symbol.merged_id = found->second.result;
  scratch.heap_.push_back(uint64_t{symbol.rank} << 32 | index);
  std::push_heap(scratch.heap_.begin(), scratch.heap_.end(), std::greater<>());
}

void Bpe::MergeAt(Scratch& scratch, uint32_t index) const {
  Scratch::Symbol& left = scratch.symbols_[index];
  Scratch::Symbol& right = scratch.symbols_[left.next];
  left.id = left.merged_id;
  left.next = right.next;
  right.id = kNoToken;
  right.rank = kNoMerge;
  if (left.next != kNone) scratch.symbols_[left.next].previous = index;
  Rank(scratch, index);
  if (left.previous != kNone) Rank(scratch, left.previous);
}

void Bpe::Encode(absl::Span<const int32_t> piece, Scratch& scratch,
                 std::vector<int32_t>& ids) const {
  CHECK(piece.size() < kNone) << piece.size() << " symbols";
  std::vector<Scratch::Symbol>& symbols = scratch.symbols_;
  std::vector<uint64_t>& heap = scratch.heap_;
  symbols.clear();
  heap.clear();
  for (uint32_t index = 0; index < piece.size(); ++index) {
    const uint32_t next = index + 1;
    symbols.push_back({.id = piece[index],
                       .merged_id = kNoToken,
                       .rank = kNoMerge,
                       .previous = index == 0 ? kNone : index - 1,
                       .next = next == piece.size() ? kNone : next});
  }
  for (uint32_t index = 0; index < symbols.size(); ++index) {
    Rank(scratch, index);
  }
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto rank = static_cast<uint32_t>(heap.back() >> 32);
    const auto index = static_cast<uint32_t>(heap.back());
    heap.pop_back();
    // An entry whose pair has changed since is stale.
    if (symbols[index].rank == rank) MergeAt(scratch, index);
  }
  for (const Scratch::Symbol& symbol : symbols) {
    if (symbol.id != kNoToken) ids.push_back(symbol.id);
  }
}

}  // namespace headcount
