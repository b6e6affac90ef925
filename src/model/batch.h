// What one step of a model computes: some tokens of some sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace headcount {

class HeadStatistics;
class LayerInputs;
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
  // Where the inputs of all layers are kept, for each of its tokens; or those
  // of a run of the same tokens, which is taken up at `first_layer`: then the
  // layers before have no K and V of this sequence, in no step. Null: neither.
  LayerInputs* kept_inputs = nullptr;
  const LayerInputs* inputs = nullptr;
  int32_t first_layer = 0;  // up to the number of layers
};

struct Batch {
  std::vector<BatchSequence> sequences;
};

}  // namespace headcount
