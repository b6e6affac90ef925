#include "prune/cost_ceiling.h"

#include "base/check.h"

namespace headcount {

TokenWork FlopsPerToken(const PrunableModel& model, const ModelWidths& widths,
                        const std::vector<LayerDrop>& drops, int64_t tokens) {
  CHECK(drops.size() == model.size() && widths.ffn.size() == model.size());
  const int64_t d = widths.hidden;
  const int64_t head = widths.head_dim;
  TokenWork flops{.output = 2 * d * widths.vocab};
  for (size_t l = 0; l < model.size(); ++l) {
    const auto queries = model[l].query_heads -
                         static_cast<int64_t>(drops[l].query_heads.size());
    const auto kvs =
        model[l].kv_heads - static_cast<int64_t>(drops[l].kv_heads.size());
    flops.projections += 4 * d * head * (queries + kvs);
    flops.attention += 4 * head * tokens * queries;
    flops.mlp += (widths.gated_mlp ? 6 : 4) * d * widths.ffn[l];
  }
  return flops;
}

}  // namespace headcount
