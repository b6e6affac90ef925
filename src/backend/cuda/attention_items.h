// From plans and layouts to what the attention kernels read.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backend/balanced_plan.h"
#include "backend/cuda/attention_work.h"
#include "heads/head_layout.h"
#include "heads/kv_geometry.h"

namespace headcount::cuda {

// `layer` with its KV heads of one dtype only, each replaced by parts that
// share its page: of at most `max_queries` query heads that are neighbours in
// the layer's projection. `query_slots`, [slot in layer], are their slots
// there, and so is a part's first_query. Slots of a plan for it are slots of
// this.
LayerHeads CutGroups(const LayerHeads& layer, absl::Span<const int> query_slots,
                     KvDtype dtype, int max_queries);

// The heads of a layer, by slot in `cut` (see CutGroups). `geometries` are by
// group; `layer` is the one they know it by.
std::vector<AttentionHead> MakeAttentionHeads(
    const LayerHeads& heads, const LayerHeads& cut,
    absl::Span<const KvGeometry> geometries, int layer);

// Items as the kernels take them, in the same order. Counters are numbered as
// plan.merges are.
std::vector<AttentionItem> MakeAttentionItems(
    const LayerHeads& cut, absl::Span<const StepSequence> sequences,
    absl::Span<const WorkItem> items, absl::Span<const MergeItem> merges);

}  // namespace headcount::cuda
