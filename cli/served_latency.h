// How long answers take under the masks of a path, as served.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "cli/candidate_model.h"
#include "cli/client.h"
#include "cli/console.h"
#include "cli/open_calls.h"
#include "cli/prune_data.h"
#include "headcount/v1/model.pb.h"
#include "prune/prune_report.h"

namespace headcount {

struct LatencySource {
  const Client* client;  // of the local server
  OpenCalls* calls;
  std::string dense;  // the name of the dense model there
  CandidateModel* candidate;
  const PruneData* data;
};

// Serves each mask of the report's path, asks it and the dense model in turns
// for the first `texts` of the select split, one at a time, and fills in the
// latency of the path's rows and of the mask on the test split.
absl::Status MeasureLatency(const v1::Model& model, const LatencySource& source,
                            int64_t texts, Console& console,
                            PruneReport* report);

}  // namespace headcount
