// The mask file heads/1 that a pruning run writes; model/heads_file.h reads it.
#pragma once

#include <string>

#include "cli/output.h"
#include "headcount/v1/model.pb.h"
#include "prune/prune_report.h"

namespace headcount {

// Only what a server needs of it, of the units that are gone.
Json MaskJson(const PruneReport& report, const v1::Model& model,
              const UnitSet& gone, const std::string& sha256);

// `sha256` of the weights, empty if not known. The report has a chosen mask.
Json HeadsJson(const PruneReport& report, const v1::Model& model,
               const std::string& sha256);

// Names the file, beside the mask file, with refit output projections.
void AddRepair(const std::string& tensors, Json* mask);

}  // namespace headcount
