// The flags of `headcount prune`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "CLI/CLI.hpp"
#include "cli/client.h"
#include "cli/flags.h"
#include "cli/prune_data.h"

namespace headcount {

// Examples that a repair takes, at most.
struct RepairOptions {
  int64_t texts = 512;     // to refit from
  int64_t examples = 256;  // to try layers on
};

struct PruneOptions {
  ClientOptions client;
  OutputFormat output = OutputFormat::kTable;
  std::string model;
  PruneFiles files;
  std::string unit = "group";
  std::optional<double> keep;
  std::optional<double> kv_bytes;
  std::string max_loss;
  double step = 0.1;
  int64_t rank_examples = 256;
  uint64_t seed = 1;
  std::string weights;
  bool repair = false;
  RepairOptions repairs;
  int64_t latency_texts = 64;  // 0: latency is not measured
  std::string out = "heads.json";
  std::string report;
  std::string journal;
};

// Whether --model is a path of weights, not a name: names have no '/'.
bool IsModelPath(const std::string& model);

// `options` outlives `app`.
void AddPruneFlags(CLI::App& app, PruneOptions* options);

}  // namespace headcount
