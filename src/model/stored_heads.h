// Which heads of a layer the tensors of a checkpoint hold, and where.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/types/span.h"
#include "format/checkpoint.h"
#include "model/model_config.h"

namespace headcount {

// By index in the unpruned layer, rising.
struct StoredHeads {
  std::vector<int> query_heads;
  std::vector<int> kv_heads;
};

// All heads, unless config.json has `pruned_heads` and the tensors of the layer
// are as small as those make them: whoever wrote them had taken the heads out
// already, as Hugging Face did. Told by the rows of the query projection; all
// other tensors of the layer have to go with it.
StoredHeads StoredHeadsOf(const ModelConfig& config,
                          const Checkpoint& checkpoint, size_t layer);

// Where `kept` lie in `stored`, which has them all; both rise.
std::vector<int> PositionsOf(absl::Span<const int> kept,
                             absl::Span<const int> stored);

}  // namespace headcount
