// Byte pair encoding: the merges of a vocabulary applied to one piece of text.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace headcount {

struct BpeMerge {
  int32_t left;
  int32_t right;
  int32_t result;
  uint32_t rank;  // the lowest is applied first; below 2^32 - 1
};

// Immutable; thread-safe.
class Bpe {
 public:
  static constexpr int32_t kNoToken = -1;

  // Memory that calls of Encode reuse. One for each thread.
  class Scratch {
    friend class Bpe;
    struct Symbol {
      int32_t id;         // kNoToken: merged into the symbol before it
      int32_t merged_id;  // of this and the next symbol
      uint32_t rank;      // of that merge, or kNoMerge
      uint32_t previous;  // indices into symbols; kNone at the ends
      uint32_t next;
    };
    std::vector<Symbol> symbols_;
    std::vector<uint64_t> heap_;  // rank << 32 | index of the left symbol
  };

  // Of two merges with the same pair the last one holds.
  explicit Bpe(absl::Span<const BpeMerge> merges);

  // Appends the ids of a piece, which is given as those of its smallest parts:
  // of all neighbours the pair with the lowest rank, the leftmost of several,
  // is merged until no pair is left. Takes O(n log n) time; n is below
  // 2^32 - 1.
  void Encode(absl::Span<const int32_t> piece, Scratch& scratch,
              std::vector<int32_t>& ids) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t result;
  };

  // Sets the merge of the pair that begins at `index`, and queues it.
  void Rank(Scratch& scratch, uint32_t index) const;
  void MergeAt(Scratch& scratch, uint32_t index) const;

  absl::flat_hash_map<uint64_t, Merge> merges_;  // by left << 32 | right
};

}  // namespace headcount
