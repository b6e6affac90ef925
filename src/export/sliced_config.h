// What a config.json says of a model whose weights hold its kept heads only.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "heads/head_layout.h"
#include "model/model_config.h"
#include "nlohmann/json_fwd.hpp"

namespace headcount {

// The heads of a layer in groups of one size, as a config.json has them: where
// pruning left unlike groups, as many as the largest, and `absent` names those
// that are not there.
struct EvenShape {
  int query_heads = 0;
  int kv_heads = 0;
  std::vector<int> absent = {};
};

EvenShape EvenShapeOf(const LayerHeads& heads);

// `json`, which is that of `config`, for the heads that `layout` keeps:
// num_attention_heads, num_key_value_heads and intermediate_size as numbers, or
// as lists where layers differ; head_dim; pruned_heads only for layers with
// unlike groups. Other keys stay. add_biases: the output projections have got
// biases. InvalidArgument where the architecture has no key that says so.
absl::StatusOr<nlohmann::json> SlicedConfig(const nlohmann::json& json,
                                            const ModelConfig& config,
                                            const HeadLayout& layout,
                                            bool add_biases);

}  // namespace headcount
