#include "model/stored_heads.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "model/weight_names.h"

namespace headcount {
namespace {

StoredHeads AllHeads(const LayerShape& shape) {
  StoredHeads all;
  for (int head = 0; head < shape.query_heads; ++head) {
    all.query_heads.push_back(head);
  }
  for (int head = 0; head < shape.kv_heads; ++head) {
    all.kv_heads.push_back(head);
  }
  return all;
}

StoredHeads WithoutHeads(const LayerShape& shape, const std::set<int>& pruned) {
  StoredHeads left;
  const int group =
      shape.kv_heads == 0 ? 1 : shape.query_heads / shape.kv_heads;
  for (int head = 0; head < shape.query_heads; ++head) {
    if (pruned.contains(head)) continue;
    left.query_heads.push_back(head);
    const int kv = head / group;
    if (left.kv_heads.empty() || left.kv_heads.back() != kv) {
      left.kv_heads.push_back(kv);
    }
  }
  return left;
}

int PositionIn(const std::vector<int>& heads, int head) {
  const auto at = std::lower_bound(heads.begin(), heads.end(), head);
  CHECK(at != heads.end() && *at == head) << head;
  return static_cast<int>(at - heads.begin());
}

}  // namespace

StoredHeads StoredHeadsOf(const ModelConfig& config,
                          const Checkpoint& checkpoint, size_t layer) {
  const LayerShape& shape = config.heads[layer];
  const auto pruned = config.pruned_heads.pruned.find(static_cast<int>(layer));
  if (pruned == config.pruned_heads.pruned.end()) return AllHeads(shape);
  StoredHeads left = WithoutHeads(shape, pruned->second);
  const WeightNames& names = WeightNamesOf(config.naming);
  const std::string name =
      absl::StrCat(names.layers, layer, ".", names.query, ".weight");
  const TensorView* query = checkpoint.Find(name);
  const bool gone = query == nullptr && !checkpoint.unread().contains(name);
  const int64_t rows = gone ? 0
                       : query == nullptr || query->shape.empty()
                           ? -1
                           : query->shape.front();
  const int64_t sliced =
      static_cast<int64_t>(left.query_heads.size()) * config.head_dim;
  return rows == sliced ? left : AllHeads(shape);
}

KeptHeads KeptIn(const StoredHeads& stored, const LayerHeads& kept) {
  KeptHeads positions;
  for (const int head : kept.query_heads) {
    positions.query_heads.push_back(PositionIn(stored.query_heads, head));
  }
  for (const KvHead& head : kept.kv_heads) {
    positions.kv_heads.push_back(PositionIn(stored.kv_heads, head.index));
  }
  return positions;
}

}  // namespace headcount
