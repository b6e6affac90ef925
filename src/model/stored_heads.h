// Which heads of a layer the tensors of a checkpoint hold, and where.
#pragma once

#include <cstddef>
#include <vector>

#include "format/checkpoint.h"
#include "heads/head_layout.h"
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

// Where the heads that a layer keeps lie in `stored`, which has them all.
struct KeptHeads {
  std::vector<int> query_heads;
  std::vector<int> kv_heads;
};
KeptHeads KeptIn(const StoredHeads& stored, const LayerHeads& kept);

}  // namespace headcount
