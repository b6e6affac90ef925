// What repairing a mask came to, and how pages show it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "prune/comparison.h"
#include "prune/gate_scorer.h"

namespace headcount {

// What came of trying a layer's: the mean of RepairLoss over the examples.
struct RepairStep {
  int layer = 0;
  std::string refit_on = {};  // which tokens
  double without = 0;
  double with = 0;
  bool accepted = false;  // and not replaced by a later one of the layer
};

// What repairing a mask came to. Comparisons with the dense model of the mask
// alone and of the mask with what was accepted, and of these two with each
// other, the mask alone in the place of the dense model: a loss below 0 is what
// the repair gains.
struct RepairReport {
  std::vector<RepairStep> steps = {};  // in the order of trying
  int64_t tried_on = 0;                // examples of the select split
  int64_t texts = 0;                   // that the refits are made from
  Metric metric = Metric::kKl;
  bool written = false;  // it is better on the whole select split
  // [Split]; of kSelect, unless nothing was accepted, and of kTest, if written.
  std::array<Comparison, kSplits> mask_alone = {};
  std::array<Comparison, kSplits> repaired = {};
  std::array<Comparison, kSplits> gain = {};
};

// One of a report's comparisons.
inline const Comparison& OnSplit(const std::array<Comparison, kSplits>& which,
                                 Split split) {
  return which[static_cast<size_t>(split)];
}

// "Output projections refit in 2 of 3 layers (0, 4)"; or that none is written,
// and why.
std::string CountRepaired(const RepairReport& report);

// What `steps` are means of, with its unit.
std::string RepairLossName(const RepairReport& report);

// A part of the report's page.
std::string RenderRepair(const RepairReport& report);

}  // namespace headcount
