// A mask file, format `heads/1`: which heads of which weights to leave out, and
// which of the rest keep only the first and the last tokens.
// docs/masks.md describes the format.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "heads/head_layout.h"
#include "heads/head_mask.h"
#include "model/model_config.h"
#include "nlohmann/json_fwd.hpp"

namespace headcount {

struct HeadsFile {
  HeadMask mask;
  KvHeadRules streaming;    // their retention
  std::string base_sha256;  // of the weights it was made for; may be empty
  // Path of the tensors of an OutputRepair; empty: none.
  std::string repair;
};

// Unknown keys are errors, and so are: another architecture, shape or head
// count than `config`'s; heads that do not exist; `drop_kv` that is not exactly
// the groups which `drop_q` empties; a `stream` of a head that is dropped.
// `repair` is relative to the file's folder;
// ReadHeadsFile completes it.
absl::StatusOr<HeadsFile> ParseHeadsFile(const nlohmann::json& json,
                                         const ModelConfig& config);
absl::StatusOr<HeadsFile> ReadHeadsFile(const std::string& path,
                                        const ModelConfig& config);

}  // namespace headcount
