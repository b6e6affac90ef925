#include "backend/attention_plan.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

// The rows of one item or of one group of splits, for every KV head.
void PlanTile(const LayerHeads& heads, const WorkItem& tile,
              const AttentionPlanOptions& options, AttentionPlan* plan) {
  const int32_t chunk = options.chunk_tokens;
  const bool split =
      tile.num_rows <= options.max_split_rows && tile.kv_end > chunk;
  for (size_t slot = 0; slot < heads.kv_heads.size(); ++slot) {
    WorkItem item = tile;
    item.kv_slot = static_cast<int32_t>(slot);
    if (!split) {
      plan->items.push_back(item);
      continue;
    }
    const int64_t slots =
        int64_t{tile.num_rows} * heads.kv_heads[slot].num_queries;
    plan->merges.push_back(
        {.kv_slot = item.kv_slot,
         .first_row = tile.first_row,
         .num_rows = tile.num_rows,
         .first_partial = static_cast<int32_t>(plan->num_partials),
         .num_splits = (tile.kv_end + chunk - 1) / chunk});
    for (int32_t begin = 0; begin < tile.kv_end; begin += chunk) {
      item.kv_begin = begin;
      item.kv_end = std::min(begin + chunk, tile.kv_end);
      item.partial = static_cast<int32_t>(plan->num_partials);
      plan->items.push_back(item);
      plan->num_partials += slots;
    }
  }
}

// Scores that an item computes, masked ones included.
int64_t Work(const LayerHeads& heads, const WorkItem& item) {
  const int64_t queries =
      heads.kv_heads[static_cast<size_t>(item.kv_slot)].num_queries;
  return queries * item.num_rows * (item.kv_end - item.kv_begin);
}

}  // namespace

void PlanAttention(const LayerHeads& heads,
                   absl::Span<const StepSequence> sequences,
                   const AttentionPlanOptions& options, AttentionPlan* plan) {
  CHECK(options.chunk_tokens > 0 && options.chunk_tokens % kBlockTokens == 0)
      << "chunks of " << options.chunk_tokens << " tokens";
  CHECK(options.tile_rows > 0) << "tiles of " << options.tile_rows << " rows";
  plan->items.clear();
  plan->merges.clear();
  plan->num_partials = 0;
  plan->chunk_tokens = options.chunk_tokens;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const StepSequence& sequence = sequences[s];
    for (int32_t row = 0; row < sequence.num_rows; row += options.tile_rows) {
      const int32_t rows = std::min(options.tile_rows, sequence.num_rows - row);
      PlanTile(heads,
               {.sequence = static_cast<int32_t>(s),
                .first_row = sequence.first_row + row,
                .num_rows = rows,
                .kv_begin = 0,
                .kv_end = sequence.past + row + rows},
               options, plan);
    }
  }
  // Ties by place, so that the order does not depend on the sort.
  std::sort(plan->items.begin(), plan->items.end(),
            [&](const WorkItem& a, const WorkItem& b) {
              const int64_t work_a = Work(heads, a);
              const int64_t work_b = Work(heads, b);
              if (work_a != work_b) return work_a > work_b;
              return std::tie(a.first_row, a.kv_slot, a.kv_begin) <
                     std::tie(b.first_row, b.kv_slot, b.kv_begin);
            });
}

}  // namespace headcount
