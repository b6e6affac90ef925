#include "backend/attention_plan.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

// Adds what the rows of `tile` walk for KV head `tile.kv_slot`: one item, or
// splits and their merge.
void PlanTile(const KvHead& head, WorkItem tile,
              const AttentionPlanOptions& options, AttentionPlan* plan) {
  const int32_t chunk = options.chunk_tokens;
  // The first row, at kv_end - num_rows, sees the farthest back.
  const int64_t first = head.retention.FirstSeen(tile.kv_end - tile.num_rows);
  tile.kv_begin = static_cast<int32_t>(first / kBlockTokens * kBlockTokens);
  const int32_t first_chunk = tile.kv_begin / chunk;
  const int32_t num_chunks = (tile.kv_end + chunk - 1) / chunk - first_chunk;
  if (tile.num_rows > options.max_split_rows || num_chunks == 1) {
    plan->items.push_back(tile);
    return;
  }
  plan->merges.push_back(
      {.kv_slot = tile.kv_slot,
       .first_row = tile.first_row,
       .num_rows = tile.num_rows,
       .first_partial = static_cast<int32_t>(plan->num_partials),
       .num_splits = num_chunks});
  for (int32_t i = first_chunk; i < first_chunk + num_chunks; ++i) {
    WorkItem item = tile;
    item.kv_begin = std::max(tile.kv_begin, i * chunk);
    item.kv_end = std::min((i + 1) * chunk, tile.kv_end);
    item.partial = static_cast<int32_t>(plan->num_partials);
    plan->items.push_back(item);
    plan->num_partials += int64_t{tile.num_rows} * head.num_queries;
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
      for (size_t slot = 0; slot < heads.kv_heads.size(); ++slot) {
        PlanTile(heads.kv_heads[slot],
                 {.sequence = static_cast<int32_t>(s),
                  .kv_slot = static_cast<int32_t>(slot),
                  .first_row = sequence.first_row + row,
                  .num_rows = rows,
                  .kv_end = sequence.past + row + rows},
                 options, plan);
      }
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
