#include "heads/even_mask.h"

#include <cmath>
#include <cstdint>

#include "base/check.h"

namespace headcount {

HeadMask EvenMask(const std::vector<LayerShape>& layers, double kept) {
  CHECK(kept >= 0 && kept <= 1) << kept;
  int64_t groups = 0;
  for (const LayerShape& layer : layers) groups += layer.kv_heads;
  if (groups == 0) return {};
  const int64_t pruned =
      groups - std::llround(kept * static_cast<double>(groups));
  HeadMask mask;
  int64_t seen = 0;
  int64_t gone = 0;
  for (size_t l = 0; l < layers.size(); ++l) {
    const LayerShape& layer = layers[l];
    if (layer.kv_heads == 0) continue;
    seen += layer.kv_heads;
    // So that after every layer as large a part is gone as of the whole.
    const auto here = static_cast<int>(pruned * seen / groups - gone);
    gone += here;
    const int group_size = layer.query_heads / layer.kv_heads;
    for (int head = layer.query_heads - here * group_size;
         head < layer.query_heads; ++head) {
      mask.pruned[static_cast<int>(l)].insert(head);
    }
  }
  return mask;
}

}  // namespace headcount
