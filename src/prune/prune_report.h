// What a pruning run found, and the page that shows it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "prune/comparison.h"
#include "prune/latency.h"
#include "prune/prune_units.h"
#include "prune/repair_report.h"

namespace headcount {

// A mask, what it costs and what it loses.
struct ReportRow {
  std::string name;
  UnitSet gone = {};
  int64_t kv_bytes = 0;     // a token
  int64_t query_heads = 0;  // that stay
  // The most that computing can get faster, from arithmetic; 0: not known.
  double speedup_ceiling = 0;
  Comparison quality = {};
  LatencyRatio latency = {};
};

struct ReportSplit {
  std::string name;
  int64_t examples = 0;
  std::string sha256;  // of its texts
};

struct PruneReport {
  std::string model;
  std::string target;  // what was asked for, in words
  double margin = 0;   // of the claim: a loss, in the metric's unit
  uint64_t seed = 0;
  PrunableModel layers;
  PruneUnits units;
  std::vector<double> unit_kl;   // [unit] alone, on the rank split
  std::vector<double> layer_kl;  // [layer] without its attention
  UnitSet gone;                  // the mask that was chosen
  int64_t dense_kv_bytes = 0;
  int64_t dense_query_heads = 0;
  int64_t ceiling_tokens = 0;   // of context, for speedup_ceiling
  std::vector<ReportRow> path;  // on the select split, least gone first
  int chosen = -1;              // in `path`
  // On the test split: what is written, the mask alone if that is another, then
  // controls.
  std::vector<ReportRow> test;
  std::vector<ReportSplit> splits;
  double stability = 1;  // MaskStability
  int rescored = 0;      // rounds in which scores were taken again
  int64_t forwards = 0;  // texts that were computed, times settings
  std::vector<std::string> notes;
  std::optional<RepairReport> repair;  // if it was tried
};

// One page of HTML without anything from elsewhere: heat map of layers and
// heads, quality against what is kept and, if it was measured, against latency,
// controls, claims. Text from outside is
// escaped. Well-formed XML.
std::string RenderReport(const PruneReport& report);

// Takes over what a repair came to; one that is written comes first on the test
// split.
void AddRepair(RepairReport repair, PruneReport* report);

// "12 of 24 KV groups pruned, 12 kept".
std::string CountPruned(const PruneReport& report);

}  // namespace headcount
