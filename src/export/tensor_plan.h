// Which tensors an exported model has, and what of the source each of them is.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "format/tensor_to_write.h"
#include "model/model_config.h"
#include "model/pruned_checkpoint.h"

namespace headcount {

// How the file is written.
struct TensorTarget {
  WeightNaming naming = WeightNaming::kHuggingFace;
  bool paired_rows = false;  // as ModelConfig::paired_rows
  // Vectors in float32, which is all that llama.cpp adds and multiplies with.
  bool float_vectors = false;
  // Every layer with heads has a bias at its output projection, and at those of
  // queries, keys and values: zeros where the source has none.
  bool out_bias = false;
  bool qkv_bias = false;
};

struct TensorPlan {
  std::vector<TensorToWrite> tensors;  // views into the source
  std::vector<std::string> notes;      // what is not as it was, for people
};

// Rows and columns of heads that `source` keeps, in their order, its repair in
// the place of what it repairs, everything else as it is. A layer without heads
// keeps nothing of its attention but the bias of the output projection. Errors
// as FindWeight. `source` outlives the plan.
absl::StatusOr<TensorPlan> PlanTensors(const PrunedCheckpoint& source,
                                       const TensorTarget& target);

// Whether the output projection of some layer that has heads left adds a bias
// that is in a repair alone.
bool RepairAddsBias(const PrunedCheckpoint& source);

}  // namespace headcount
