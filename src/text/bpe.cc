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

Bpe::Bpe(const std::array<int32_t, 256>& byte_ids,
         absl::Span<const BpeMerge> merges)
    : byte_ids_(byte_ids) {
  CHECK(merges.size() < kNoMerge);
  ranks_.reserve(merges.size());
  results_.reserve(merges.size());
  for (const BpeMerge& merge : merges) {
    ranks_[PairKey(merge.left, merge.right)] =
        static_cast<uint32_t>(results_.size());
    results_.push_back(merge.result);
  }
}

uint32_t Bpe::RankOf(int32_t left, int32_t right) const {
  const auto found = ranks_.find(PairKey(left, right));
  return found == ranks_.end() ? kNoMerge : found->second;
}

void Bpe::Rank(Scratch& scratch, uint32_t index) const {
  Scratch::Symbol& symbol = scratch.symbols_[index];
  symbol.rank = kNoMerge;
  if (symbol.next == kNone) return;
  symbol.rank = RankOf(symbol.id, scratch.symbols_[symbol.next].id);
  if (symbol.rank == kNoMerge) return;
  scratch.heap_.push_back(uint64_t{symbol.rank} << 32 | index);
  std::push_heap(scratch.heap_.begin(), scratch.heap_.end(), std::greater<>());
}

void Bpe::MergeAt(Scratch& scratch, uint32_t index) const {
  Scratch::Symbol& left = scratch.symbols_[index];
  Scratch::Symbol& right = scratch.symbols_[left.next];
  left.id = results_[left.rank];
  left.next = right.next;
  right.id = kNoToken;
  right.rank = kNoMerge;
  if (left.next != kNone) scratch.symbols_[left.next].previous = index;
  Rank(scratch, index);
  if (left.previous != kNone) Rank(scratch, left.previous);
}

void Bpe::Encode(std::string_view piece, Scratch& scratch,
                 std::vector<int32_t>& ids) const {
  CHECK(piece.size() < kNone) << piece.size() << " bytes";
  std::vector<Scratch::Symbol>& symbols = scratch.symbols_;
  std::vector<uint64_t>& heap = scratch.heap_;
  symbols.clear();
  heap.clear();
  for (const char c : piece) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id == kNoToken) continue;
    const auto index = static_cast<uint32_t>(symbols.size());
    symbols.push_back({id, kNoMerge, index == 0 ? kNone : index - 1, kNone});
    if (index > 0) symbols[index - 1].next = index;
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
