// Mask files, heads/1, as commands write them; model/heads_file.h reads them.
#pragma once

#include <cstdint>
#include <string>

#include "cli/output.h"
#include "headcount/v1/model.pb.h"
#include "prune/prune_report.h"

namespace headcount {

// The model that a mask was made for, before any pruning.
struct MaskBase {
  std::string architecture = {};
  std::string sha256 = {};  // of the weights; empty if not known
  int64_t layers = 0;
  int64_t query_heads = 0;  // of layer 0
  int64_t kv_heads = 0;     // of layer 0
  int64_t head_dim = 0;
};

// `layers`: an array of what differs from the whole model.
Json MaskFileJson(const MaskBase& base, Json layers);

// Of a pruning run: only what a server needs of it, of the units that are gone.
Json MaskJson(const PruneReport& report, const v1::Model& model,
              const UnitSet& gone, const std::string& sha256);

// `sha256` of the weights, empty if not known. The report has a chosen mask.
Json HeadsJson(const PruneReport& report, const v1::Model& model,
               const std::string& sha256);

// Names the file, beside the mask file, with refit output projections.
void AddRepair(const std::string& tensors, Json* mask);

}  // namespace headcount
