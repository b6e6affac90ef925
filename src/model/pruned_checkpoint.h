// The files of a model with the heads of it that are to be kept: what serving
// loads and what exporting writes.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "format/checkpoint.h"
#include "heads/head_layout.h"
#include "model/heads_file.h"
#include "model/model_config.h"
#include "model/output_repair.h"

namespace headcount {

struct PrunedSource {
  std::string path;            // a Hugging Face directory, or GGUF (FindGguf)
  HeadMask mask = {};          // joined with the mask file and config.json's
  std::string mask_file = {};  // heads/1; empty: none
  KvDtype kv_dtype = KvDtype::kF16;
  KvHeadRules kv_head_rules = {};  // with the last word over the mask file's
};

// Movable.
struct PrunedCheckpoint {
  ModelConfig config;
  HeadLayout layout;
  Checkpoint checkpoint;
  std::optional<OutputRepair> repair;
  std::string sha256;  // of the weights; empty where no mask file asks for it
};

// InvalidArgument, naming file and field, for a mask that does not fit the
// model, and as ReadModelConfig, ReadHeadsFile, Checkpoint::Open and
// OutputRepair::Open.
absl::StatusOr<PrunedCheckpoint> OpenPruned(const PrunedSource& source);

// Adds the heads of `from`.
void JoinMask(const HeadMask& from, HeadMask* to);

// Joins what a mask file says of heads to `mask` and `rules`, which has the
// last word, and returns all that it says: nothing if `mask_file` is empty.
absl::StatusOr<HeadsFile> JoinMaskFile(const std::string& mask_file,
                                       const ModelConfig& config,
                                       HeadMask* mask, KvHeadRules* rules);

// InvalidArgument unless `sha256`, of `weights`, is what the mask file names.
absl::Status CheckMadeFor(const std::string& mask_file,
                          const std::string& made_for,
                          const std::string& weights,
                          const std::string& sha256);

}  // namespace headcount
