#include "heads/head_layout.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

// What a mask file and ParseHeadRange can name; sums over layers stay far below
// the range of int64_t.
constexpr int kMaxLayers = 65536;
constexpr int kMaxHeads = 65536;

absl::Status CheckRetention(absl::string_view place,
                            const Retention& retention) {
  if (retention.window < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(place, ": a window of ", retention.window,
                     " tokens; there must be at least 1, or 0 for all"));
  }
  const int32_t sink = retention.sink;
  if (sink < 0 || sink % kBlockTokens != 0 || (sink > 0 && retention.full())) {
    return absl::InvalidArgumentError(absl::StrCat(
        place, ": a sink of ", sink, " tokens; it must be a multiple of ",
        kBlockTokens, ", and beside a window"));
  }
  return absl::OkStatus();
}

absl::Status CheckShape(int layer, const LayerShape& shape) {
  absl::Status retention =
      CheckRetention(absl::StrCat("layer ", layer), shape.retention);
  if (!retention.ok()) return retention;
  if (shape.query_heads == 0 && shape.kv_heads == 0) return absl::OkStatus();
  if (shape.query_heads < 1 || shape.query_heads > kMaxHeads ||
      shape.kv_heads < 1 || shape.query_heads % shape.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", layer, ": ", shape.query_heads, " query heads cannot share ",
        shape.kv_heads, " KV heads; the KV heads must divide the query heads"));
  }
  return absl::OkStatus();
}

absl::Status CheckLayer(absl::string_view key, const HeadLayoutSpec& spec,
                        int layer) {
  const auto layers = static_cast<int>(spec.layers.size());
  if (layer >= 0 && layer < layers) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(key, ": layer ", layer, " does not exist; the model has ",
                   layers, " layers (0-", layers - 1, ")"));
}

// `kind` is "query" or "KV"; the layer has `count` such heads.
absl::Status HeadError(absl::string_view key, absl::string_view kind, int layer,
                       int head, int count) {
  return absl::InvalidArgumentError(absl::StrCat(
      key, ": layer ", layer, ", ", kind == "KV" ? "KV head " : "head ", head,
      " does not exist; ",
      count == 0 ? std::string("the layer has no attention")
                 : absl::StrCat("the layer has ", count, " ", kind,
                                " heads (0-", count - 1, ")")));
}

absl::Status CheckMask(const HeadLayoutSpec& spec) {
  constexpr char kKey[] = "heads.pruned";
  for (const auto& [layer, heads] : spec.mask.pruned) {
    absl::Status status = CheckLayer(kKey, spec, layer);
    if (!status.ok()) return status;
    const int count = spec.layers[static_cast<size_t>(layer)].query_heads;
    for (const int head : heads) {
      if (head >= 0 && head < count) continue;
      return HeadError(kKey, "query", layer, head, count);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckKvHeadRule(const LayerShape& shape, int layer, int head,
                             const KvHeadRule& rule) {
  constexpr char kKey[] = "kv_cache.heads";
  if (head < 0 || head >= shape.kv_heads) {
    return HeadError(kKey, "KV", layer, head, shape.kv_heads);
  }
  if (!rule.retention.has_value()) return absl::OkStatus();
  const std::string place =
      absl::StrCat(kKey, ": layer ", layer, ", KV head ", head);
  if (!shape.retention.full()) {
    return absl::InvalidArgumentError(absl::StrCat(
        place, ": the layer has a sliding window of ", shape.retention.window,
        " tokens of its own, which streaming cannot change"));
  }
  return CheckRetention(place, *rule.retention);
}

absl::Status CheckKvHeadRules(const HeadLayoutSpec& spec) {
  for (const auto& [layer, heads] : spec.kv_head_rules) {
    absl::Status status = CheckLayer("kv_cache.heads", spec, layer);
    if (!status.ok()) return status;
    for (const auto& [head, rule] : heads) {
      status = CheckKvHeadRule(spec.layers[static_cast<size_t>(layer)], layer,
                               head, rule);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

// What `by_layer` has for `layer`; empty where it has nothing.
template <class Value>
Value OfLayer(const std::map<int, Value>& by_layer, int layer) {
  const auto found = by_layer.find(layer);
  return found == by_layer.end() ? Value{} : found->second;
}

LayerHeads KeptHeads(const HeadLayoutSpec& spec, int index) {
  const LayerShape& shape = spec.layers[static_cast<size_t>(index)];
  LayerHeads layer;
  layer.dense = shape;
  if (shape.kv_heads == 0) return layer;
  const std::set<int> pruned = OfLayer(spec.mask.pruned, index);
  const std::map<int, KvHeadRule> rules = OfLayer(spec.kv_head_rules, index);
  const int group_size = shape.query_heads / shape.kv_heads;
  for (int kv = 0; kv < shape.kv_heads; ++kv) {
    const int first_query = static_cast<int>(layer.query_heads.size());
    for (int head = kv * group_size; head < (kv + 1) * group_size; ++head) {
      if (pruned.contains(head)) continue;
      layer.query_heads.push_back(head);
    }
    const int num_queries =
        static_cast<int>(layer.query_heads.size()) - first_query;
    if (num_queries == 0) continue;
    KvHead kept{.index = kv,
                .first_query = first_query,
                .num_queries = num_queries,
                .retention = shape.retention,
                .dtype = spec.kv_dtype};
    if (const auto rule = rules.find(kv); rule != rules.end()) {
      kept.retention = rule->second.retention.value_or(kept.retention);
      kept.dtype = rule->second.dtype.value_or(kept.dtype);
    }
    layer.kv_heads.push_back(kept);
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
  absl::Status status = CheckMask(spec);
  if (status.ok()) status = CheckKvHeadRules(spec);
  if (!status.ok()) return status;

  HeadLayout layout;
  layout.head_dim_ = spec.head_dim;
  layout.layers_.reserve(spec.layers.size());
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    layout.layers_.push_back(KeptHeads(spec, static_cast<int>(i)));
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

HeadMask MaskOf(const HeadLayout& layout) {
  HeadMask mask;
  for (size_t l = 0; l < layout.layers().size(); ++l) {
    const LayerHeads& layer = layout.layers()[l];
    std::set<int> pruned;
    for (int head = 0; head < layer.dense.query_heads; ++head) {
      pruned.insert(pruned.end(), head);
    }
    for (const int head : layer.query_heads) pruned.erase(head);
    if (!pruned.empty()) mask.pruned[static_cast<int>(l)] = std::move(pruned);
  }
  return mask;
}

KvHeadRules RulesOf(const HeadLayout& layout) {
  KvHeadRules rules;
  for (size_t l = 0; l < layout.layers().size(); ++l) {
    const LayerHeads& layer = layout.layers()[l];
    for (const KvHead& head : layer.kv_heads) {
      KvHeadRule& rule = rules[static_cast<int>(l)][head.index];
      rule.dtype = head.dtype;
      if (head.retention != layer.dense.retention) {
        rule.retention = head.retention;
      }
    }
  }
  return rules;
}

}  // namespace headcount
