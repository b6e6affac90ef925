#include "backend/attention_plan.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

// Tokens [begin, end), cut at multiples of `chunk`.
struct Chunks {
  Chunks(int32_t begin_token, int32_t end_token, int32_t chunk_tokens)
      : begin(begin_token), end(end_token), chunk(chunk_tokens) {
    if (end > begin) count = (end + chunk - 1) / chunk - begin / chunk;
  }

  int32_t Begin(int32_t i) const {
    return std::max(begin, (begin / chunk + i) * chunk);
  }
  int32_t End(int32_t i) const {
    return std::min(end, (begin / chunk + i + 1) * chunk);
  }

  int32_t begin;
  int32_t end;
  int32_t chunk;
  int32_t count = 0;
};

// Adds what the rows of `tile` walk for KV head `tile.kv_slot`: one item, or
// splits and their merge.
void PlanTile(const KvHead& head, WorkItem tile,
              const AttentionPlanOptions& options, AttentionPlan* plan) {
  // The first row, at kv_end - num_rows, sees the farthest back.
  const int64_t first = head.retention.FirstSeen(tile.kv_end - tile.num_rows);
  const int32_t sink = std::min(head.retention.sink, tile.kv_end);
  tile.kv_begin =
      std::max(sink, static_cast<int32_t>(first / kBlockTokens * kBlockTokens));
  const Chunks of_sink(0, sink, options.chunk_tokens);
  const Chunks of_window(tile.kv_begin, tile.kv_end, options.chunk_tokens);
  const int32_t num_chunks = of_sink.count + of_window.count;
  // A walk knows of no gap, so where there is a sink, tiles are always split:
  // the same parts for whatever rows they have.
  if (num_chunks == 1 ||
      (sink == 0 && tile.num_rows > options.max_split_rows)) {
    if (of_window.count == 0) tile.kv_begin = 0;
    plan->items.push_back(tile);
    return;
  }
  plan->merges.push_back(
      {.sequence = tile.sequence,
       .kv_slot = tile.kv_slot,
       .first_row = tile.first_row,
       .num_rows = tile.num_rows,
       .first_partial = static_cast<int32_t>(plan->num_partials),
       .num_splits = num_chunks});
  for (const Chunks& chunks : {of_sink, of_window}) {
    for (int32_t i = 0; i < chunks.count; ++i) {
      WorkItem item = tile;
      item.kv_begin = chunks.Begin(i);
      item.kv_end = chunks.End(i);
      item.partial = static_cast<int32_t>(plan->num_partials);
      item.merge = static_cast<int32_t>(plan->merges.size()) - 1;
      plan->items.push_back(item);
      plan->num_partials += int64_t{tile.num_rows} * head.num_queries;
    }
  }
}

}  // namespace

void PlanAttention(absl::Span<const LayerHeads* const> heads,
                   absl::Span<const StepSequence> sequences,
                   const AttentionPlanOptions& options, AttentionPlan* plan) {
  CHECK(options.chunk_tokens > 0 && options.chunk_tokens % kBlockTokens == 0)
      << "chunks of " << options.chunk_tokens << " tokens";
  CHECK(options.tile_rows > 0) << "tiles of " << options.tile_rows << " rows";
  plan->items.clear();
  plan->merges.clear();
  plan->num_partials = 0;
  plan->chunk_tokens = options.chunk_tokens;
  const auto kv_heads_of = [&](const StepSequence& sequence) {
    return absl::MakeConstSpan(
        heads[static_cast<size_t>(sequence.variant)]->kv_heads);
  };
  for (size_t s = 0; s < sequences.size(); ++s) {
    const StepSequence& sequence = sequences[s];
    const absl::Span<const KvHead> kv_heads = kv_heads_of(sequence);
    for (int32_t row = 0; row < sequence.num_rows; row += options.tile_rows) {
      const int32_t rows = std::min(options.tile_rows, sequence.num_rows - row);
      for (size_t slot = 0; slot < kv_heads.size(); ++slot) {
        PlanTile(kv_heads[slot],
                 {.sequence = static_cast<int32_t>(s),
                  .kv_slot = static_cast<int32_t>(slot),
                  .first_row = sequence.first_row + row,
                  .num_rows = rows,
                  .kv_end = sequence.past + row + rows},
                 options, plan);
      }
    }
  }
  // Scores that an item computes, masked ones included.
  const auto work = [&](const WorkItem& item) {
    const int64_t queries = kv_heads_of(sequences[static_cast<size_t>(
        item.sequence)])[static_cast<size_t>(item.kv_slot)]
                                .num_queries;
    return queries * item.num_rows * (item.kv_end - item.kv_begin);
  };
  // Ties by place, so that the order does not depend on the sort.
  std::sort(plan->items.begin(), plan->items.end(),
            [&](const WorkItem& a, const WorkItem& b) {
              const int64_t work_a = work(a);
              const int64_t work_b = work(b);
              if (work_a != work_b) return work_a > work_b;
              return std::tie(a.first_row, a.kv_slot, a.kv_begin) <
                     std::tie(b.first_row, b.kv_slot, b.kv_begin);
            });
}

void PlanAttention(const LayerHeads& heads,
                   absl::Span<const StepSequence> sequences,
                   const AttentionPlanOptions& options, AttentionPlan* plan) {
  const LayerHeads* const same = &heads;
  PlanAttention(absl::MakeConstSpan(&same, 1), sequences, options, plan);
}

}  // namespace headcount
