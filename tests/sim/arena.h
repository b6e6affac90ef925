// Memory that remembers: each token slot of a block holds what was written
// there last, so that whoever reads a block that is not his, or was never
// written, or was written over, is found out. Stands in for attention.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "tests/sim/verdict.h"

namespace headcount::sim {

// A block table as a reader sees it.
struct Pages {
  absl::Span<const int64_t> offsets;  // [entry] bytes, -1: a hole
  int64_t block_bytes = 0;            // a multiple of 128
  uint64_t group = 0;                 // in the model; part of what is written
};

class Arena {
 public:
  Arena(int64_t bytes, Verdict* verdict)
      : words_(static_cast<size_t>(bytes / 8)), verdict_(verdict) {}

  // Positions `first` to `end` of a sequence hold `contents` of these.
  void Read(const Pages& pages, absl::Span<const uint64_t> contents,
            int32_t first, int32_t end);
  void Write(const Pages& pages, absl::Span<const uint64_t> contents,
             int32_t first, int32_t end);
  // What one position holds, as it was given to Write.
  uint64_t At(const Pages& pages, int32_t position) const;

 private:
  size_t WordOf(const Pages& pages, int32_t position) const;
  static uint64_t Tag(const Pages& pages) {
    return (pages.group + 1) * 0x9e3779b97f4a7c15;
  }

  std::vector<uint64_t> words_;
  Verdict* const verdict_;
};

}  // namespace headcount::sim
