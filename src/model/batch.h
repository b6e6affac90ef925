// What one step of a model computes: some tokens of some sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace headcount {

class HeadStatistics;
class Variant;

struct BatchSequence {
  // The heads that it runs; null: all that the model's weights hold. Outlives
  // the step.
  const Variant* variant = nullptr;
  absl::Span<const int32_t> tokens;  // new tokens, at least one
  int32_t past = 0;                  // tokens whose K and V are in the pages
  // [group of the variant] arena offsets of the blocks, with room for past +
  // new tokens. Those that the first new token does not see are not read, and
  // may be anything.
  std::vector<absl::Span<const int64_t>> blocks;
  // Logits are computed for the last `logits_rows` of the new tokens.
  int32_t logits_rows = 0;
  // Factors on the context vectors of query heads, [layer][head] of the
  // unpruned model in one list. Those of pruned heads are not read. Empty: 1.
  absl::Span<const float> head_gates = {};
  // Where what its heads put out is added, of tokens from that position on;
  // made for its variant. Null: nowhere.
  HeadStatistics* statistics = nullptr;
  int32_t statistics_from = 0;
};

struct Batch {
  std::vector<BatchSequence> sequences;
};

}  // namespace headcount
