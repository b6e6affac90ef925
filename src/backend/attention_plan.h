// The list of work that attention walks in one step, made on the host: the
// same on every backend. Ragged groups, mixed prefill and decode, long
// sequences, sliding windows and pruned heads are only different items.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "heads/head_layout.h"

namespace headcount {

// The part of one sequence that a step computes.
struct StepSequence {
  int32_t first_row = 0;  // of the step
  int32_t num_rows = 0;   // new tokens; row i stands at position past + i
  int32_t past = 0;       // tokens already in its pages
  int32_t variant = 0;    // in AttentionLayer::variants
  std::vector<int64_t> block_begin;  // [group], in StepInputs::block_offsets
  int64_t gates_begin = -1;          // in StepInputs::head_gates; -1: no gates
};

// Query rows [first_row, first_row + num_rows) of the step x the query heads of
// one KV head (a slot in the sequence's variant) against tokens [kv_begin,
// kv_end). Each row sees tokens up to its own position only, and of a windowed
// KV head those from the head's retention.FirstSeen(position) on. An item that
// begins in the head's sink has no window (Retention::From); it ends with the
// sink, unless its rows see all tokens behind that, too.
struct WorkItem {
  int32_t sequence = 0;
  int32_t kv_slot = 0;
  int32_t first_row = 0;
  int32_t num_rows = 0;
  // The start of a block: of the first that a row sees, or of a later chunk.
  // Blocks before it may have been given back.
  int32_t kv_begin = 0;
  int32_t kv_end = 0;
  // First of num_rows * num_queries slots for an unfinished result, or -1 when
  // the item sees all that its rows attend to and writes the output itself.
  int32_t partial = -1;
  int32_t merge = -1;  // index in AttentionPlan::merges; -1 with `partial`
};

// Joins the unfinished results of one (rows, KV head) in token order.
struct MergeItem {
  int32_t sequence = 0;
  int32_t kv_slot = 0;
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t first_partial = 0;  // slots of the first split; the others follow
  int32_t num_splits = 0;
};

struct AttentionPlan {
  std::vector<WorkItem> items;
  std::vector<MergeItem> merges;
  int64_t num_partials = 0;
  int32_t chunk_tokens = 0;  // of the options
};

struct AttentionPlanOptions {
  // Tokens are always summed up in chunks of this many, from token 0, and the
  // chunks joined in order: so a result has the same bits however the work is
  // cut. A multiple of kBlockTokens.
  int32_t chunk_tokens = 512;
  // Query rows of an item: pages are read once for all of them.
  int32_t tile_rows = 16;
  // Items with at most this many rows are split by chunks, for parallelism;
  // longer tiles walk their chunks one after the other.
  int32_t max_split_rows = 4;
};

// Overwrites `plan`, whose memory is reused. Deterministic. Items come with the
// most work first, so that the last ones to start are short; an item with a
// partial result is exactly one chunk, as far as its rows see it.
//
// heads: [StepSequence::variant], the heads of the layer that each one runs.
void PlanAttention(absl::Span<const LayerHeads* const> heads,
                   absl::Span<const StepSequence> sequences,
                   const AttentionPlanOptions& options, AttentionPlan* plan);
// The same where all sequences run the same heads, and name variant 0.
void PlanAttention(const LayerHeads& heads,
                   absl::Span<const StepSequence> sequences,
                   const AttentionPlanOptions& options, AttentionPlan* plan);

}  // namespace headcount
