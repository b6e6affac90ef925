// Patterns of DuoAttention (Xiao et al. 2024, arXiv:2410.10819): for each KV
// head a gate, trained to 1 where the answers need all tokens ("retrieval
// head") and to 0 where the first and the last do ("streaming head").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "heads/head_layout.h"
#include "heads/kv_group.h"

namespace headcount {

struct DuoPattern {
  std::vector<std::vector<double>> gates;  // [layer][KV head], from 0 to 1
  // Of the streaming heads: what config.json beside the gates says, or what the
  // paper deploys. The sink is rounded up to whole blocks.
  Retention streaming = {.window = 256, .sink = 64};
};

// `path` is a folder with full_attention_heads.tsv, or that file: a line for
// each layer, a number for each KV head, separated by tabs. Gates are clipped
// to 0 to 1. InvalidArgument, naming file and line, for anything else.
absl::StatusOr<DuoPattern> ReadDuoPattern(const std::string& path);

// InvalidArgument unless the pattern has a gate for each KV head of `layers`.
absl::Status CheckDuoPattern(const DuoPattern& pattern,
                             const std::vector<LayerShape>& layers);

// The `share`, from 0 to 1, of all KV heads stream whose gates are least;
// rounded down. Where gates are equal, the first by layer and head.
KvHeadRules StreamingHeads(const DuoPattern& pattern, double share);

}  // namespace headcount
