// What differs from layer to layer in a config.json: heads, sliding windows and
// the width of the feed-forward network. Files write one number for all
// layers, lists of them, or block_configs (Nemotron-NAS).
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "heads/head_layout.h"
#include "model/json_fields.h"
#include "model/model_config.h"
#include "nlohmann/json_fwd.hpp"

namespace headcount {

// Fills heads, head_dim and ffn of `config`, whose architecture, layers, hidden
// and max_context are known. InvalidArgument naming the key, and the layer
// where it is a list.
absl::Status ParseLayerShapes(JsonFields& fields, ModelConfig* config);

// The unpruned heads of every layer of any model whose config.json says them,
// for planning: also of architectures that are not served (OpenELM).
absl::StatusOr<HeadLayoutSpec> ParseHeads(const nlohmann::json& config);

}  // namespace headcount
