// What can be taken out of a model, piece by piece, and what each piece saves.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace headcount {

// A kept KV head of the model that is pruned, with the query heads it serves.
struct PrunableGroup {
  int kv_head = 0;               // in the unpruned layer
  std::vector<int> query_heads;  // in the unpruned layer, rising; never empty
  int64_t bytes_per_token = 0;   // of its K and V
};

struct PrunableLayer {
  int query_heads = 0;  // of the unpruned layer
  int kv_heads = 0;     // of the unpruned layer
  std::vector<PrunableGroup> groups;
};

using PrunableModel = std::vector<PrunableLayer>;  // [layer]

enum class UnitKind {
  kGroup,  // a KV head and its query heads: frees memory
  kHead,   // a query head: frees arithmetic, memory only with its whole group
};

struct PruneUnit {
  int layer = 0;
  int kv_head = 0;
  std::vector<int> query_heads;
  // What the target counts: bytes of KV cache a token (groups), 1 (heads).
  int64_t cost = 0;
};

struct PruneUnits {
  UnitKind kind = UnitKind::kGroup;
  std::vector<PruneUnit> units;  // by layer, then head
  int64_t total_cost = 0;
  // Why `kind` is not what was asked for; empty: it is.
  std::string note;
};

// Groups become heads where no layer has more than one group (multi-query
// attention): there a group is all of a layer's attention.
PruneUnits MakeUnits(const PrunableModel& model, UnitKind kind);

// [unit]: true where it is taken out.
using UnitSet = std::vector<bool>;

int64_t CostOf(const PruneUnits& units, const UnitSet& gone);
UnitSet Union(const UnitSet& a, const UnitSet& b);

// A layer's query heads that are taken out, and the KV heads that this empties;
// what the model lacked already counts as taken out.
struct LayerDrop {
  std::vector<int> query_heads;  // in the unpruned layer, rising
  std::vector<int> kv_heads;
};
// [layer]
std::vector<LayerDrop> DropsOf(const PrunableModel& model,
                               const PruneUnits& units, const UnitSet& gone);

// KV cache of a token in the heads that stay, in bytes.
int64_t KvBytesPerToken(const PrunableModel& model,
                        const std::vector<LayerDrop>& drops);
// Query heads that stay.
int64_t QueryHeads(const PrunableModel& model,
                   const std::vector<LayerDrop>& drops);

}  // namespace headcount
