// The file with a mask's refit output projections; model/output_repair.h reads
// it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "prune/repair_search.h"

namespace headcount {

// A safetensors file: `layers.N.o_proj.weight` [hidden, kept columns], where
// there are any, and `layers.N.o_proj.bias` [hidden] of each layer, F32. As
// WriteSafetensors.
absl::Status WriteRepair(const std::string& path,
                         const std::vector<LayerRepair>& repair);

}  // namespace headcount
