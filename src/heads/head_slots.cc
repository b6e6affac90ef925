#include "heads/head_slots.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace headcount {
namespace {

// The KV slot of `head`, which serves a kept query head and so is there.
int KvSlotOf(const LayerHeads& layer, int head) {
  const auto slot =
      std::find_if(layer.kv_heads.begin(), layer.kv_heads.end(),
                   [head](const KvHead& kv) { return kv.index == head; });
  CHECK(slot != layer.kv_heads.end()) << "KV head " << head;
  return static_cast<int>(slot - layer.kv_heads.begin());
}

}  // namespace

absl::StatusOr<std::vector<LayerSlots>> SlotsIn(const HeadLayout& wide,
                                                const HeadLayout& narrow) {
  CHECK(wide.layers().size() == narrow.layers().size());
  std::vector<LayerSlots> slots(narrow.layers().size());
  for (size_t l = 0; l < slots.size(); ++l) {
    const LayerHeads& from = narrow.layers()[l];
    const LayerHeads& to = wide.layers()[l];
    CHECK(from.dense == to.dense) << "layer " << l << " of another model";
    for (const int head : from.query_heads) {
      const auto slot =
          std::lower_bound(to.query_heads.begin(), to.query_heads.end(), head);
      if (slot == to.query_heads.end() || *slot != head) {
        return absl::InvalidArgumentError(absl::StrCat(
            "heads.pruned: layer ", l, ", head ", head,
            " would run, but the base has pruned it; name it here too"));
      }
      slots[l].query.push_back(static_cast<int>(slot - to.query_heads.begin()));
    }
    for (const KvHead& kv : from.kv_heads) {
      slots[l].kv.push_back(KvSlotOf(to, kv.index));
    }
  }
  return slots;
}

}  // namespace headcount
