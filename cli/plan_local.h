// Capacity plans of a model whose configuration is on this machine: no server,
// no weights, no pool.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/element_type.h"
#include "cli/gpus.h"
#include "headcount/v1/model.pb.h"
#include "heads/head_layout.h"
#include "heads/head_mask.h"
#include "heads/kv_dtype.h"
#include "model/heads_file.h"
#include "model/model_shape.h"

namespace headcount {

struct PlanSettings {
  KvDtype kv_dtype = KvDtype::kF16;
  KvHeadRules kv_head_rules = {};          // of a mask file
  std::optional<ElementType> weight_type;  // the configuration's unless set
  int64_t context_tokens = 0;              // 0: the model's
  int64_t kv_pool_bytes = 0;  // 0: what a GPU has left, or the server's default
  double watermark = 0.01;
  int32_t step_tokens = 256;
  std::optional<Device> gpu;
  int gpus = 1;  // that compute every layer together, each with its own pool
};

// Of a GPU's memory, what is used at all; and of that, what is neither weights
// nor KV pool: the driver, workspaces of a step, fragments.
inline constexpr double kUsedPart = 0.9;
inline constexpr int64_t kOverheadBytes = int64_t{1} << 30;

// `mask` in head numbers of the unpruned model, besides what the configuration
// itself prunes. Of several GPUs, the plan of the one that lets in the fewest
// sequences: each holds the heads that DealHeads gives it, its part of every
// MLP's width and of the vocabulary, and all norms. InvalidArgument naming what
// to mend.
absl::StatusOr<v1::CapacityPlan> PlanLocally(const ModelShape& shape,
                                             const PlanSettings& settings,
                                             const HeadMask& mask);

// A mask file for the model (format heads/1); the weights that it names are not
// looked at.
absl::StatusOr<HeadsFile> ReadMask(const std::string& path,
                                   const ModelShape& shape);

// Plans of a share of KV groups and a KV dtype.
struct SweepPoint {
  double kept = 1;  // of all KV groups, 0 to 1
  v1::CapacityPlan plan;
};
struct SweepLine {
  KvDtype dtype = KvDtype::kF16;
  std::vector<SweepPoint> points;  // from all groups down to a tenth
};

// For f16, fp8_e4m3, int8 and int4, with EvenMask.
absl::StatusOr<std::vector<SweepLine>> Sweep(const ModelShape& shape,
                                             PlanSettings settings);

}  // namespace headcount
