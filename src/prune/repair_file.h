// The tensors of a repair as a safetensors file, which model/output_repair.h
// reads.
#pragma once

#include <string>
#include <vector>

#include "prune/repair_search.h"

namespace headcount {

// Its bytes: `layers.N.o_proj.weight` [hidden, kept columns], where there are
// any, and `layers.N.o_proj.bias` [hidden] of each layer, F32.
std::string RepairFile(const std::vector<LayerRepair>& repair);

}  // namespace headcount
