#include "heads/head_layout.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace headcount {
namespace {

// What a mask file and ParseHeadRange can name; sums over layers stay far below
// the range of int64_t.
constexpr int kMaxLayers = 65536;
constexpr int kMaxHeads = 65536;

absl::Status CheckShape(int layer, const LayerShape& shape) {
  if (shape.retention.window < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, ": a window of ", shape.retention.window,
                     " tokens; there must be at least 1, or 0 for all"));
  }
  if (shape.query_heads == 0 && shape.kv_heads == 0) return absl::OkStatus();
  if (shape.query_heads < 1 || shape.query_heads > kMaxHeads ||
      shape.kv_heads < 1 || shape.query_heads % shape.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, ": ", shape.query_heads, " query heads cannot share ",
        shape.kv_heads, " KV heads; the KV heads must divide the query heads"));
  }
  return absl::OkStatus();
}

absl::Status CheckMask(const HeadLayoutSpec& spec) {
  const int num_layers = static_cast<int>(spec.layers.size());
  for (const auto& [layer, heads] : spec.mask.pruned) {
    if (layer < 0 || layer >= num_layers) {
      return absl::InvalidArgumentError(absl::StrCat(
          "heads.pruned: layer ", layer, " does not exist; the model has ",
          num_layers, " layers (0-", num_layers - 1, ")"));
    }
    const int num_heads = spec.layers[static_cast<size_t>(layer)].query_heads;
    for (int head : heads) {
      if (head >= 0 && head < num_heads) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "heads.pruned: layer ", layer, ", head ", head, " does not exist; ",
          num_heads == 0
              ? std::string("the layer has no attention")
              : absl::StrCat("the layer has ", num_heads, " query heads (0-",
                             num_heads - 1, ")")));
    }
  }
  return absl::OkStatus();
}

LayerHeads KeptHeads(const LayerShape& shape, const std::set<int>* pruned,
                     KvDtype dtype) {
  LayerHeads layer;
  layer.dense = shape;
  if (shape.kv_heads == 0) return layer;
  const int group_size = shape.query_heads / shape.kv_heads;
  for (int kv = 0; kv < shape.kv_heads; ++kv) {
    const int first_query = static_cast<int>(layer.query_heads.size());
    for (int head = kv * group_size; head < (kv + 1) * group_size; ++head) {
      if (pruned != nullptr && pruned->contains(head)) continue;
      layer.query_heads.push_back(head);
    }
    const int num_queries =
        static_cast<int>(layer.query_heads.size()) - first_query;
    if (num_queries == 0) continue;
    layer.kv_heads.push_back({.index = kv,
                              .first_query = first_query,
                              .num_queries = num_queries,
                              .group = 0,
                              .retention = shape.retention,
                              .dtype = dtype});
  }
  return layer;
}

// Sorts the KV heads of `layers` into groups, and tells them theirs.
std::vector<KvGroup> MakeGroups(std::vector<LayerHeads>* layers) {
  std::vector<KvGroup> groups = {KvGroup{}};  // full
  for (size_t layer = 0; layer < layers->size(); ++layer) {
    const std::vector<KvHead>& heads = (*layers)[layer].kv_heads;
    for (size_t slot = 0; slot < heads.size(); ++slot) {
      auto group =
          std::find_if(groups.begin(), groups.end(), [&](const KvGroup& other) {
            return other.retention == heads[slot].retention;
          });
      if (group == groups.end()) {
        group = groups.insert(group, {heads[slot].retention, {}});
      }
      group->heads.push_back({static_cast<int>(layer), static_cast<int>(slot)});
    }
  }
  if (groups.front().heads.empty()) groups.erase(groups.begin());
  for (size_t group = 0; group < groups.size(); ++group) {
    for (const KvHeadId& id : groups[group].heads) {
      (*layers)[static_cast<size_t>(id.layer)]
          .kv_heads[static_cast<size_t>(id.kv_slot)]
          .group = static_cast<int>(group);
    }
  }
  return groups;
}

}  // namespace

absl::StatusOr<HeadLayout> HeadLayout::Create(const HeadLayoutSpec& spec) {
  if (spec.layers.empty() || spec.layers.size() > kMaxLayers) {
    return absl::InvalidArgumentError(
        absl::StrCat("a model of ", spec.layers.size(),
                     " layers; there must be 1 to ", kMaxLayers));
  }
  if (spec.head_dim < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim ", spec.head_dim, " must be at least 1"));
  }
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    absl::Status status = CheckShape(static_cast<int>(i), spec.layers[i]);
    if (!status.ok()) return status;
  }
  if (absl::Status status = CheckMask(spec); !status.ok()) return status;

  HeadLayout layout;
  layout.head_dim_ = spec.head_dim;
  layout.layers_.reserve(spec.layers.size());
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const auto pruned = spec.mask.pruned.find(static_cast<int>(i));
    layout.layers_.push_back(
        KeptHeads(spec.layers[i],
                  pruned == spec.mask.pruned.end() ? nullptr : &pruned->second,
                  spec.kv_dtype));
  }
  layout.groups_ = MakeGroups(&layout.layers_);
  std::vector<const LayerHeads*> classes;  // a layer of each class
  for (const LayerHeads& heads : layout.layers_) {
    const auto same =
        std::find_if(classes.begin(), classes.end(),
                     [&](const LayerHeads* other) { return *other == heads; });
    layout.layer_class_.push_back(static_cast<int>(same - classes.begin()));
    if (same == classes.end()) classes.push_back(&heads);

    layout.query_heads_ += static_cast<int64_t>(heads.query_heads.size());
    layout.kv_heads_ += static_cast<int64_t>(heads.kv_heads.size());
    layout.dense_query_heads_ += heads.dense.query_heads;
    layout.dense_kv_heads_ += heads.dense.kv_heads;
  }
  layout.num_layer_classes_ = static_cast<int>(classes.size());
  return layout;
}

}  // namespace headcount
