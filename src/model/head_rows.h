// Rows and columns of heads in the tensors of attention.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace headcount {

// Rows or columns of a tensor, `step` apart.
struct Run {
  int64_t first = 0;
  int64_t count = 0;
  int64_t step = 1;
  bool operator==(const Run&) const = default;
};

// Those of `heads`, which rise, joined where heads are neighbours.
std::vector<Run> RunsOf(absl::Span<const int> heads, int head_dim);

// The rows of `heads` in a file whose pairs lie together: of each head the even
// ones, which are its first half, then the odd ones (ModelConfig::paired_rows).
std::vector<Run> PairedRunsOf(absl::Span<const int> heads, int head_dim);

// The other way: rows of `heads` so that pairs come to lie together, the first
// of each half, then the second of each half, and so on.
std::vector<Run> PairingRunsOf(absl::Span<const int> heads, int head_dim);

}  // namespace headcount
