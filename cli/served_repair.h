// Repairs of a mask, made from statistics of a local server's dense model and
// tried with its candidate.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/candidate_model.h"
#include "cli/client.h"
#include "cli/console.h"
#include "cli/local_weights.h"
#include "cli/open_calls.h"
#include "cli/output.h"
#include "cli/prune_data.h"
#include "cli/prune_options.h"
#include "cli/served_answers.h"
#include "prune/prune_pipeline.h"
#include "prune/repair_search.h"

namespace headcount {

// Serves the candidate with each repair, and asks it and the dense model.
class ServedRepairTrial final : public RepairTrial {
 public:
  struct Source {
    const Client* client;  // of the local server
    OpenCalls* calls;
    std::string dense;  // the name of the dense model there
    CandidateModel* candidate;
    const PruneData* data;
    Json mask;  // the candidate's, without a repair
  };

  // `on_progress` is called with the answers that have come. What `source`
  // points to outlives it.
  ServedRepairTrial(Source source, std::function<void(int64_t)> on_progress);

  absl::StatusOr<Answers> Try(Split split, const std::vector<int64_t>& examples,
                              const std::vector<LayerRepair>& repair) override;

 private:
  absl::StatusOr<ServedAnswer> Ask(const std::string& model,
                                   const LabelledText& text);

  const Source source_;
  const std::function<void(int64_t)> on_progress_;
  Asking asking_;
  std::map<std::pair<Split, int64_t>, ServedAnswer> dense_;  // so far
  int64_t answers_ = 0;
};

// Refits the output projections of all layers that the report's mask takes
// something of, on all tokens and on those where answers are computed, and
// searches. `source` as for the trial.
absl::StatusOr<RepairResult> RepairMask(const PruneReport& report,
                                        const PruneTask& task,
                                        const RepairOptions& options,
                                        const LocalWeights& weights,
                                        const ServedRepairTrial::Source& source,
                                        Console& console);

}  // namespace headcount
