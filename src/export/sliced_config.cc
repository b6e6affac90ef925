#include "export/sliced_config.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

// One number if all layers have the same.
nlohmann::json NumberOrList(const std::vector<int32_t>& values) {
  const bool alike = std::all_of(values.begin(), values.end(),
                                 [&](int32_t v) { return v == values[0]; });
  if (alike) return values[0];
  return values;
}

absl::Status AddBiases(const ModelConfig& config, nlohmann::json* json) {
  const std::string& architecture = config.architecture;
  if (architecture == "mistral" || architecture == "qwen2") {
    return absl::InvalidArgumentError(absl::StrCat(
        "the mask file's repair adds biases to output projections, which ",
        architecture,
        " has no key for: make a repair without them, or serve the model with "
        "the mask file"));
  }
  (*json)["attention_bias"] = true;
  return absl::OkStatus();
}

}  // namespace

EvenShape EvenShapeOf(const LayerHeads& heads) {
  EvenShape shape;
  shape.kv_heads = static_cast<int>(heads.kv_heads.size());
  int group = 0;
  for (const KvHead& head : heads.kv_heads) {
    group = std::max(group, head.num_queries);
  }
  shape.query_heads = shape.kv_heads * group;
  for (int kv = 0; kv < shape.kv_heads; ++kv) {
    const int present = heads.kv_heads[static_cast<size_t>(kv)].num_queries;
    for (int i = present; i < group; ++i) {
      shape.absent.push_back(kv * group + i);
    }
  }
  return shape;
}

absl::StatusOr<nlohmann::json> SlicedConfig(const nlohmann::json& json,
                                            const ModelConfig& config,
                                            const HeadLayout& layout,
                                            bool add_biases) {
  nlohmann::json sliced = json;
  for (const char* key :
       {"pruned_heads", "block_configs", "num_attention_heads_per_layer",
        "num_key_value_heads_per_layer", "intermediate_size_per_layer"}) {
    sliced.erase(key);
  }
  std::vector<int32_t> query_heads;
  std::vector<int32_t> kv_heads;
  nlohmann::json absent = nlohmann::json::object();
  for (size_t layer = 0; layer < layout.layers().size(); ++layer) {
    const EvenShape shape = EvenShapeOf(layout.layers()[layer]);
    query_heads.push_back(shape.query_heads);
    kv_heads.push_back(shape.kv_heads);
    if (!shape.absent.empty()) absent[absl::StrCat(layer)] = shape.absent;
  }
  sliced["num_attention_heads"] = NumberOrList(query_heads);
  sliced["num_key_value_heads"] = NumberOrList(kv_heads);
  // A number would say that all layers have heads of the one kind or of none.
  if (sliced["num_attention_heads"].is_array() !=
      sliced["num_key_value_heads"].is_array()) {
    sliced["num_attention_heads"] = query_heads;
    sliced["num_key_value_heads"] = kv_heads;
  }
  if (query_heads == std::vector<int32_t>(query_heads.size(), 0)) {
    sliced["num_attention_heads"] = query_heads;  // 0 is for lists only
    sliced["num_key_value_heads"] = kv_heads;
  }
  sliced["intermediate_size"] = NumberOrList(config.ffn);
  sliced["head_dim"] = config.head_dim;
  if (!absent.empty()) sliced["pruned_heads"] = absent;
  if (add_biases) {
    const absl::Status status = AddBiases(config, &sliced);
    if (!status.ok()) return status;
  }
  return sliced;
}

}  // namespace headcount
