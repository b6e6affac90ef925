// Byte pair encoding: the merges of a vocabulary applied to one piece of text.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace headcount {

struct BpeMerge {
  int32_t left;
  int32_t right;
  int32_t result;
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
      uint32_t rank;      // of the merge with the next symbol, or kNoMerge
      uint32_t previous;  // indices into symbols; kNone at the ends
      uint32_t next;
    };
    std::vector<Symbol> symbols_;
    std::vector<uint64_t> heap_;  // rank << 32 | index of the left symbol
  };

  // `byte_ids`: the token of each byte; a byte of kNoToken gives none, as if it
  // were not in the text. `merges` go from the first to be applied to the last;
  // of two with the same pair the last one holds.
  Bpe(const std::array<int32_t, 256>& byte_ids,
      absl::Span<const BpeMerge> merges);

  // Appends the ids of `piece`: of all neighbours the pair with the lowest
  // rank, the leftmost of several, is merged until no pair is left. Takes
  // O(n log n) time; `piece` has less than 2^32 - 1 bytes.
  void Encode(std::string_view piece, Scratch& scratch,
              std::vector<int32_t>& ids) const;

 private:
  uint32_t RankOf(int32_t left, int32_t right) const;
  // Sets the rank of the pair that begins at `index`, and queues it.
  void Rank(Scratch& scratch, uint32_t index) const;
  void MergeAt(Scratch& scratch, uint32_t index) const;

  std::array<int32_t, 256> byte_ids_;
  absl::flat_hash_map<uint64_t, uint32_t> ranks_;  // left << 32 | right
  std::vector<int32_t> results_;                   // by rank
};

}  // namespace headcount
