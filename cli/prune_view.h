// How the result of `prune` looks on a terminal and to a script.
#pragma once

#include <string>

#include "cli/output.h"
#include "prune/prune_report.h"

namespace headcount {

// The chosen mask and its controls on the test split, what may be claimed, and
// what a repair gained;
// without a chosen mask, the path on the select split. Ends with a line feed.
std::string RenderPrune(const PruneReport& report);

Json PruneJson(const PruneReport& report);

// Of a comparison: all numbers, whatever the metric.
Json ComparisonJson(const Comparison& comparison);

}  // namespace headcount
