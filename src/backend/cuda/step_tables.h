// What the attention and KV-write kernels of a step read that the host has
// made: of which rows and heads each block of a grid takes care, and where the
// pages are. All of it is made before the step and uploaded at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <vector>

#include "absl/types/span.h"
#include "backend/backend.h"
#include "backend/balanced_plan.h"
#include "backend/cuda/attention_kernels.h"
#include "backend/cuda/device_memory.h"
#include "heads/head_layout.h"

namespace headcount::cuda {

// Attention of the sequences of one variant over the KV heads of one dtype, in
// all layers that are alike. Places are those of the StepUpload.
struct AttentionLaunch {
  int32_t variant = 0;
  KvDtype dtype = KvDtype::kF16;
  AttentionKernel decode;   // null: no sequence decodes
  AttentionKernel prefill;  // null: all do
  int32_t tiles = 0;        // blocks of the prefill kernel
  int64_t decode_items = 0;
  int64_t worker_begin = 0;
  int64_t tile_items = 0;
};

// Neighbouring rows of one variant.
struct RowRun {
  int32_t variant = 0;
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int64_t row_blocks = 0;  // place of the [group, num_rows] byte offsets
};

// One layer: places, in LayerSet::tables, of what differs from those alike.
struct LayerTables {
  size_t shape = 0;                  // in LayerSet::shapes
  std::vector<int64_t> heads;        // [launch of the shape] AttentionHead
  std::vector<int64_t> write_heads;  // [variant] KvWriteHead of each KV head
  bool covers_out = true;  // each row of the step runs all query heads
};

// Layers whose heads are cut in the same way.
struct LayerShapeTables {
  int layer_class = 0;
  std::vector<LayerHeads> cut;            // [launch]
  std::vector<AttentionLaunch> launches;  // before any plan
};

// What does not change with sequences, but with the variants that they run.
struct LayerSet {
  std::vector<uint64_t> variant_ids;  // StepInputs's
  std::vector<LayerTables> layers;    // as StepInputs::layers
  std::vector<LayerShapeTables> shapes;
  std::vector<std::byte> tables;
};

// Memory is reused from step to step. Not thread-safe.
struct StepTables {
  std::list<LayerSet> known;  // the step's first, then others, the last used
  int64_t layer_tables = 0;   // place of known.front().tables
  std::vector<RowRun> runs;
  std::vector<std::vector<AttentionLaunch>> launches;  // [shape]
  // The most that a launch needs.
  int64_t num_partials = 0;
  int64_t num_counters = 0;
};

// What the attention of no step within `limits` exceeds, on so many workers.
BalancedPlanBounds BoundStepTables(const StepLimits& limits, int32_t workers);

// Whether the kernels know heads of that kind: OK, or InvalidArgument that
// names it.
absl::Status CheckHeads(int head_dim, KvDtype dtype);

// Makes the tables of a step for `workers` blocks of the decode kernels. What
// is at the places is added to `upload`, those last that grow with contexts.
void MakeStepTables(const StepInputs& inputs, int32_t workers,
                    StepUpload* upload, StepTables* tables);

}  // namespace headcount::cuda
