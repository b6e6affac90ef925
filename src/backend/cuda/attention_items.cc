#include "backend/cuda/attention_items.h"

#include <algorithm>

#include "base/check.h"

namespace headcount::cuda {

LayerHeads CutGroups(const LayerHeads& layer, absl::Span<const int> query_slots,
                     KvDtype dtype, int max_queries) {
  CHECK(max_queries > 0) << max_queries << " queries";
  LayerHeads cut = layer;
  cut.kv_heads.clear();
  for (const KvHead& head : layer.kv_heads) {
    if (head.dtype != dtype) continue;
    KvHead part = head;
    part.num_queries = 0;
    for (int i = 0; i < head.num_queries; ++i) {
      const int slot = query_slots[static_cast<size_t>(head.first_query) +
                                   static_cast<size_t>(i)];
      const bool follows =
          part.num_queries > 0 && slot == part.first_query + part.num_queries;
      if (!follows || part.num_queries == max_queries) {
        if (part.num_queries > 0) cut.kv_heads.push_back(part);
        part.first_query = slot;
        part.num_queries = 0;
      }
      ++part.num_queries;
    }
    if (part.num_queries > 0) cut.kv_heads.push_back(part);
  }
  return cut;
}

std::vector<AttentionHead> MakeAttentionHeads(
    const LayerHeads& heads, const LayerHeads& cut,
    absl::Span<const KvGeometry> geometries, int layer) {
  std::vector<AttentionHead> out;
  size_t slot = 0;
  for (const KvHead& part : cut.kv_heads) {
    while (heads.kv_heads[slot].index != part.index) ++slot;
    const KvPage& page = geometries[static_cast<size_t>(part.group)].page(
        layer, static_cast<int>(slot));
    out.push_back({.page_offset = page.k_offset,
                   .first_query = part.first_query,
                   .num_queries = part.num_queries});
  }
  return out;
}

std::vector<AttentionItem> MakeAttentionItems(
    const LayerHeads& cut, absl::Span<const StepSequence> sequences,
    absl::Span<const WorkItem> items, absl::Span<const MergeItem> merges) {
  std::vector<AttentionItem> out;
  out.reserve(items.size());
  for (const WorkItem& item : items) {
    const StepSequence& sequence =
        sequences[static_cast<size_t>(item.sequence)];
    const KvHead& head = cut.kv_heads[static_cast<size_t>(item.kv_slot)];
    AttentionItem made{
        .row = item.first_row,
        .num_rows = item.num_rows,
        .position = sequence.past + item.first_row - sequence.first_row,
        .head = item.kv_slot,
        .block_begin = static_cast<int32_t>(
            sequence.block_begin[static_cast<size_t>(head.group)]),
        .kv_begin = item.kv_begin,
        .kv_end = item.kv_end,
        .window = head.retention.From(item.kv_begin).window};
    if (item.merge >= 0) {
      const MergeItem& merge = merges[static_cast<size_t>(item.merge)];
      made.first_partial = merge.first_partial;
      made.split = (item.partial - merge.first_partial) /
                   (item.num_rows * head.num_queries);
      made.num_splits = merge.num_splits;
      made.counter = item.merge;
    }
    out.push_back(made);
  }
  return out;
}

}  // namespace headcount::cuda
