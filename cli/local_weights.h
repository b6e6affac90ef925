// What a command reads of a model's weights that are on this machine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "format/checkpoint.h"
#include "model/model_config.h"
#include "prune/output_refit.h"

namespace headcount {

struct LocalWeights {
  ModelConfig config;
  Checkpoint checkpoint;
  std::string sha256;  // of the checkpoint
};

// `path`: a folder in the layout of Hugging Face or a .gguf file.
absl::StatusOr<LocalWeights> ReadLocalWeights(const std::string& path);

// The columns of `query_heads`, and the bias if there is one, of a layer's
// output projection. InvalidArgument, naming the tensor, if it is not there or
// of another shape than the configuration says.
absl::StatusOr<OutputProjection> ReadOutputProjection(
    const LocalWeights& weights, int layer,
    const std::vector<int>& query_heads);

}  // namespace headcount
