// What `prune` was asked for, put together from flags, data and the served
// model.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/local_weights.h"
#include "cli/prune_data.h"
#include "cli/prune_options.h"
#include "headcount/v1/model.pb.h"
#include "prune/prune_pipeline.h"
#include "prune/prune_report.h"

namespace headcount {

// "50 % of the KV bytes".
std::string TargetInWords(const PruneTarget& target, Metric metric,
                          UnitKind unit);

// `weights`: null if they are not on this machine. InvalidArgument, naming the
// flag, for what does not fit together.
absl::StatusOr<PruneTask> MakeTask(const PruneOptions& options,
                                   const v1::Model& model,
                                   const PruneData& data,
                                   const LocalWeights* weights);

absl::StatusOr<std::vector<ReportSplit>> DescribeSplits(const PruneData& data);

// What scores depend on but the settings, as the journal compares it. `sha256`:
// of the weights; empty if they are not on this machine. Not covered, since the
// server does not tell it: the template that texts to classify are put into, a
// repair that is served and, without `sha256`, other weights of the same size.
absl::StatusOr<std::string> RunHash(const v1::Model& model,
                                    const PruneTask& task,
                                    const std::vector<ReportSplit>& splits,
                                    const std::string& sha256);

}  // namespace headcount
