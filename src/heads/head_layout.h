// What is left of a model's attention heads: the answer to every question
// about which heads run, what they share and what they cost.
//
//   HeadLayoutSpec spec{.layers = std::vector(30, LayerShape{9, 3}),
//                       .head_dim = 64};
//   spec.mask.pruned[3] = {0, 1, 2};          // a whole group of layer 3
//   absl::StatusOr<HeadLayout> layout = HeadLayout::Create(spec);
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "heads/head_mask.h"
#include "heads/kv_dtype.h"
#include "heads/kv_group.h"

namespace headcount {

// Heads of one layer of the unpruned model. 0, 0 is a layer without attention.
// Otherwise `kv_heads` divides `query_heads`.
struct LayerShape {
  int query_heads = 0;
  int kv_heads = 0;
  Retention retention = {};  // of its KV heads, unless a KvHeadRule differs
  bool operator==(const LayerShape&) const = default;
};

// A kept KV head. The query heads that it serves are a contiguous run of
// LayerHeads::query_heads, because the heads of a group are neighbours in the
// unpruned model and pruning keeps their order.
struct KvHead {
  int index = 0;             // in the unpruned layer
  int first_query = 0;       // slot in LayerHeads::query_heads
  int num_queries = 0;       // >= 1; groups of one layer may differ ("ragged")
  int group = 0;             // index in HeadLayout::groups()
  Retention retention = {};  // that of the group
  KvDtype dtype = KvDtype::kF16;
  bool operator==(const KvHead&) const = default;
};

// What is kept of one layer.
struct LayerHeads {
  LayerShape dense;  // before pruning
  std::vector<int>
      query_heads;  // [slot] -> index in the unpruned layer, rising
  std::vector<KvHead> kv_heads;  // [kv slot], by rising index

  bool has_attention() const { return !kv_heads.empty(); }
  bool operator==(const LayerHeads&) const = default;
};

// How a KV head keeps its cache, where it is not as the rest.
struct KvHeadRule {
  std::optional<KvDtype> dtype = {};  // absent: HeadLayoutSpec::kv_dtype
  // Absent: that of its layer. Only where the layer keeps all tokens: a window
  // that the model was trained with is not ours to change.
  std::optional<Retention> retention = {};
  bool operator==(const KvHeadRule&) const = default;
};

// By layer and KV head of the unpruned model. Those of pruned heads have no
// effect.
using KvHeadRules = std::map<int, std::map<int, KvHeadRule>>;

struct HeadLayoutSpec {
  std::vector<LayerShape> layers;
  int head_dim = 0;
  HeadMask mask = {};
  KvDtype kv_dtype = KvDtype::kF16;
  // Of the KV heads that differ from the rest.
  KvHeadRules kv_head_rules = {};
};

// Immutable, copyable, thread-safe to read.
class HeadLayout {
 public:
  // InvalidArgument, naming layer and head, when a shape is impossible, or the
  // mask or kv_head_rules names a layer or head that does not exist.
  static absl::StatusOr<HeadLayout> Create(const HeadLayoutSpec& spec);

  const std::vector<LayerHeads>& layers() const { return layers_; }
  int head_dim() const { return head_dim_; }

  // Retention rules in use: `full` first, then windows in the order in which
  // layers name them. Empty when no layer has attention.
  const std::vector<KvGroup>& groups() const { return groups_; }

  // Layers with equal LayerHeads have the same class, numbered from 0 in order
  // of first appearance: one attention plan serves a whole class.
  const std::vector<int>& layer_class() const { return layer_class_; }
  int num_layer_classes() const { return num_layer_classes_; }

  // Sums over layers.
  int64_t query_heads() const { return query_heads_; }
  int64_t kv_heads() const { return kv_heads_; }
  int64_t dense_query_heads() const { return dense_query_heads_; }
  int64_t dense_kv_heads() const { return dense_kv_heads_; }

 private:
  HeadLayout() = default;

  std::vector<LayerHeads> layers_;
  std::vector<KvGroup> groups_;
  std::vector<int> layer_class_;
  int num_layer_classes_ = 0;
  int head_dim_ = 0;
  int64_t query_heads_ = 0;
  int64_t kv_heads_ = 0;
  int64_t dense_query_heads_ = 0;
  int64_t dense_kv_heads_ = 0;
};

// What `layout` leaves out, and how it keeps the rest: with the shapes of
// its layers, all that it takes to make one that leaves out more.
HeadMask MaskOf(const HeadLayout& layout);
KvHeadRules RulesOf(const HeadLayout& layout);

}  // namespace headcount
