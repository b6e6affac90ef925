// The examples of a pruning run, in three splits that share no text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/labelled_texts.h"
#include "prune/comparison.h"
#include "prune/gate_scorer.h"

namespace headcount {

struct PruneData {
  std::array<std::vector<LabelledText>, kSplits> splits;
  // Of split rank, but not drawn for ranking; in the order of the draw.
  std::vector<LabelledText> not_ranked;
  Metric metric = Metric::kKl;  // what select and test allow
  // Texts were put into splits by their hash.
  bool split_by_hash = false;

  const std::vector<LabelledText>& of(Split split) const {
    return splits[static_cast<size_t>(split)];
  }
};

struct PruneFiles {
  std::string data;  // all splits, by "split" in each line or by hash
  std::array<std::string, kSplits> splits;  // or one file each
  std::string field;
  PromptFrame frame = {};
};

// Reads the files, puts each text into its split (those without one by
// SHA-256: 3 of 10 to rank, 3 to select, 4 to test), and draws at most
// `most_ranked` for ranking with `seed`. `labels` are the model's: expected
// labels must be among them. InvalidArgument, naming the split, if two texts
// are the same, if a split is empty, or if only some examples of select and
// test have something that is expected.
absl::StatusOr<PruneData> ReadPruneData(const PruneFiles& files,
                                        const std::vector<std::string>& labels,
                                        int64_t most_ranked, uint64_t seed);

// "rank", "select", "test".
std::string SplitName(Split split);

// SHA-256 over the texts and what is expected of them, in order.
absl::StatusOr<std::string> HashOf(const std::vector<LabelledText>& texts);

}  // namespace headcount
