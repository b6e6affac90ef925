// Attention work for a device whose workers walk lists of items that were made
// before they started: the blocks of a GPU's grid. Lists are cut to equal cost.
// (backend/attention_plan.h cuts at fixed tokens instead, for workers that take
// the next item when they are free.)
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backend/attention_plan.h"
#include "heads/head_layout.h"

namespace headcount {

struct BalancedPlanOptions {
  int32_t workers = 1;
  // What an item costs before its first token, in tokens: its setup, and the
  // writing and joining of its part of a result.
  int32_t item_cost = 128;
  // No part of a split sequence is shorter, but for what is left over.
  int32_t min_tokens = 128;
  // Rows of a prefill tile times queries of its KV head, at most.
  int32_t tile_queries = 128;
};

// Items of sequences that compute one row (decoding), and tiles of those that
// compute more.
struct BalancedPlan {
  // Worker w walks decode[worker_begin[w], worker_begin[w + 1]). [workers + 1]
  std::vector<WorkItem> decode;
  std::vector<int32_t> worker_begin;
  // Each for any worker, the most work first.
  std::vector<WorkItem> tiles;
  std::vector<MergeItem> merges;  // of both
  int64_t num_partials = 0;
};

// What no plan for some sequences exceeds.
struct BalancedPlanBounds {
  int64_t partials = 0;
  int64_t merges = 0;
};

// Of any sequences that together compute at most `rows` rows, none of which
// comes to more than `context` tokens.
BalancedPlanBounds BoundPlans(const LayerHeads& heads, int64_t rows,
                              int64_t context,
                              const BalancedPlanOptions& options);

// Overwrites `plan`, whose memory is reused. Deterministic. Costs some ten
// nanoseconds for each KV head of each sequence.
void PlanBalanced(const LayerHeads& heads,
                  absl::Span<const StepSequence> sequences,
                  const BalancedPlanOptions& options, BalancedPlan* plan);

}  // namespace headcount
