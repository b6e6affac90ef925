#include "model/head_rows.h"

namespace headcount {

std::vector<Run> RunsOf(absl::Span<const int> heads, int head_dim) {
  std::vector<Run> runs;
  for (int head : heads) {
    const int64_t first = int64_t{head} * head_dim;
    if (!runs.empty() && runs.back().first + runs.back().count == first) {
      runs.back().count += head_dim;
    } else {
      runs.push_back({first, head_dim});
    }
  }
  return runs;
}

std::vector<Run> PairedRunsOf(absl::Span<const int> heads, int head_dim) {
  std::vector<Run> runs;
  for (int head : heads) {
    const int64_t first = int64_t{head} * head_dim;
    runs.push_back({first, head_dim / 2, 2});
    runs.push_back({first + 1, head_dim / 2, 2});
  }
  return runs;
}

std::vector<Run> PairingRunsOf(absl::Span<const int> heads, int head_dim) {
  std::vector<Run> runs;
  const int64_t half = head_dim / 2;
  for (int head : heads) {
    const int64_t first = int64_t{head} * head_dim;
    for (int64_t pair = 0; pair < half; ++pair) {
      runs.push_back({first + pair, 2, half});
    }
  }
  return runs;
}

}  // namespace headcount
