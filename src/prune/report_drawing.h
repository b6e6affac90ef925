// The drawings of the pruning report, as SVG that takes its colours from
// the page.
#pragma once

#include <string>

#include "prune/prune_report.h"

namespace headcount {

// Layers down, heads across: how dark a cell is says what the answers lose
// without it, a cross that it is pruned. Every cell has a title.
std::string DrawHeatMap(const PruneReport& report);

// Loss against what is kept: the path with 95 % intervals, the chosen mask and
// the controls on the test split. What lies above the picture is written at its
// edge.
std::string DrawQuality(const PruneReport& report);

// The same against the measured latency, of the masks that have one; both with
// 95 % intervals.
std::string DrawLatency(const PruneReport& report);

// & < > " and ' as XML has them; control characters become spaces.
std::string EscapeXml(const std::string& text);

}  // namespace headcount
