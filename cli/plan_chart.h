// The plot of a sweep: one HTML file that needs nothing else.
#pragma once

#include <string>
#include <vector>

#include "cli/gpus.h"
#include "cli/plan_local.h"

namespace headcount {

// Sequences and, where the device's speed is known, tokens per second at best,
// by share of KV groups, a line for each dtype. `model` is its title.
std::string SweepHtml(const std::string& model,
                      const std::vector<SweepLine>& lines,
                      const Device& device);

}  // namespace headcount
