// A mask for arithmetic: how much is kept is given, which heads is not known
// yet.
#pragma once

#include <vector>

#include "heads/head_layout.h"
#include "heads/head_mask.h"

namespace headcount {

// Whole KV groups, the part `kept` (0 to 1) of all, rounded to the nearest
// count; what goes is spread evenly over the layers, and in a layer the last
// groups go first. Which groups a task can spare is another question: this one
// is for what it would cost.
HeadMask EvenMask(const std::vector<LayerShape>& layers, double kept);

}  // namespace headcount
