#include "prune/prune_units.h"

#include <algorithm>

#include "base/check.h"

namespace headcount {
namespace {

bool IsMultiQuery(const PrunableModel& model) {
  bool any = false;
  for (const PrunableLayer& layer : model) {
    if (layer.groups.size() > 1) return false;
    for (const PrunableGroup& group : layer.groups) {
      any = any || group.query_heads.size() > 1;
    }
  }
  return any;
}

bool Contains(const std::vector<int>& sorted, int value) {
  return std::binary_search(sorted.begin(), sorted.end(), value);
}

}  // namespace

PruneUnits MakeUnits(const PrunableModel& model, UnitKind kind) {
  PruneUnits result{.kind = kind, .units = {}, .total_cost = 0, .note = ""};
  if (kind == UnitKind::kGroup && IsMultiQuery(model)) {
    result.kind = UnitKind::kHead;
    result.note =
        "the model has one KV head a layer (multi-query attention), so a group "
        "would be a layer's whole attention: single query heads are pruned, "
        "and memory is saved only where a layer loses all of them";
  }
  for (size_t layer = 0; layer < model.size(); ++layer) {
    for (const PrunableGroup& group : model[layer].groups) {
      PruneUnit unit{.layer = static_cast<int>(layer),
                     .kv_head = group.kv_head,
                     .query_heads = group.query_heads,
                     .cost = group.bytes_per_token};
      if (result.kind == UnitKind::kGroup) {
        result.units.push_back(unit);
        continue;
      }
      for (const int head : group.query_heads) {
        unit.query_heads = {head};
        unit.cost = 1;
        result.units.push_back(unit);
      }
    }
  }
  result.total_cost = CostOf(result, UnitSet(result.units.size(), true));
  return result;
}

int64_t CostOf(const PruneUnits& units, const UnitSet& gone) {
  CHECK(gone.size() == units.units.size());
  int64_t cost = 0;
  for (size_t i = 0; i < gone.size(); ++i) {
    if (gone[i]) cost += units.units[i].cost;
  }
  return cost;
}

UnitSet Union(const UnitSet& a, const UnitSet& b) {
  CHECK(a.size() == b.size());
  UnitSet both = a;
  for (size_t i = 0; i < b.size(); ++i) both[i] = both[i] || b[i];
  return both;
}

std::vector<LayerDrop> DropsOf(const PrunableModel& model,
                               const PruneUnits& units, const UnitSet& gone) {
  CHECK(gone.size() == units.units.size());
  std::vector<std::vector<int>> kept(model.size());
  for (size_t i = 0; i < gone.size(); ++i) {
    const PruneUnit& unit = units.units[i];
    if (gone[i]) continue;
    std::vector<int>& heads = kept[static_cast<size_t>(unit.layer)];
    heads.insert(heads.end(), unit.query_heads.begin(), unit.query_heads.end());
  }
  std::vector<LayerDrop> drops(model.size());
  for (size_t l = 0; l < model.size(); ++l) {
    std::sort(kept[l].begin(), kept[l].end());
    for (int head = 0; head < model[l].query_heads; ++head) {
      if (!Contains(kept[l], head)) drops[l].query_heads.push_back(head);
    }
    const int group_size =
        model[l].kv_heads == 0 ? 0 : model[l].query_heads / model[l].kv_heads;
    for (int kv = 0; kv < model[l].kv_heads; ++kv) {
      const auto first =
          std::lower_bound(kept[l].begin(), kept[l].end(), kv * group_size);
      if (first == kept[l].end() || *first >= (kv + 1) * group_size) {
        drops[l].kv_heads.push_back(kv);
      }
    }
  }
  return drops;
}

int64_t KvBytesPerToken(const PrunableModel& model,
                        const std::vector<LayerDrop>& drops) {
  CHECK(drops.size() == model.size());
  int64_t bytes = 0;
  for (size_t l = 0; l < model.size(); ++l) {
    for (const PrunableGroup& group : model[l].groups) {
      if (!Contains(drops[l].kv_heads, group.kv_head)) {
        bytes += group.bytes_per_token;
      }
    }
  }
  return bytes;
}

int64_t QueryHeads(const PrunableModel& model,
                   const std::vector<LayerDrop>& drops) {
  CHECK(drops.size() == model.size());
  int64_t heads = 0;
  for (size_t l = 0; l < model.size(); ++l) {
    heads += model[l].query_heads;
    heads -= static_cast<int64_t>(drops[l].query_heads.size());
  }
  return heads;
}

}  // namespace headcount
