// From scores to a mask: rank, walk the path, choose, look at the test split
// once, compare with controls.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "prune/comparison.h"
#include "prune/cost_ceiling.h"
#include "prune/gate_scorer.h"
#include "prune/prune_report.h"
#include "prune/prune_units.h"

namespace headcount {

struct PruneTarget {
  // Of the units' cost, at most; absent: as little as `max_loss` allows.
  std::optional<double> keep;
  // The claim to make about the loss, in the metric's unit.
  double max_loss = 0.01;
  double step = 0.1;  // of the path, in shares of the cost
};

struct PruneTask {
  std::string model;  // its name
  PrunableModel layers;
  UnitKind unit = UnitKind::kGroup;
  PruneTarget target;
  Metric metric = Metric::kKl;
  // [split][example] what is right; used of kSelect and kTest with kAccuracy.
  std::array<std::vector<std::string>, kSplits> truth;
  uint64_t seed = 1;
  std::optional<ModelWidths> widths;  // for the ceiling of speed
  int64_t ceiling_tokens = 512;       // of context there
};

// Everything of the report but `splits` and `forwards`. `chosen` is -1, and the
// test split not read, when no mask holds max_loss. FailedPrecondition if there
// is nothing to prune or the target keeps everything.
absl::StatusOr<PruneReport> Prune(const PruneTask& task, GateScorer* scorer);

// Texts times settings that Prune will ask for, unless scores have to be taken
// again more often than planned; with max_loss, at most.
int64_t PlannedForwards(const PruneTask& task,
                        const std::array<int64_t, kSplits>& examples);

}  // namespace headcount
