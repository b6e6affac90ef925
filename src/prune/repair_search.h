// Which refit output projections a mask is served with: each layer's has to
// earn its place. On some models and masks they hurt (docs/heads.md).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "prune/comparison.h"
#include "prune/gate_scorer.h"
#include "prune/output_refit.h"
#include "prune/repair_report.h"

namespace headcount {

// The output projection of a layer, for the heads that are left of it; without
// any, only its bias.
struct LayerRepair {
  int layer = 0;
  std::string refit_on = {};  // which tokens, in words
  OutputProjection projection = {};
};

// Asks what is answered with a mask and a repair of it.
class RepairTrial {
 public:
  virtual ~RepairTrial() = default;

  struct Answers {
    std::vector<Outcome> dense = {};
    std::vector<Outcome> repaired = {};
  };
  // Of the examples of a split that `examples` names, in this order. An empty
  // repair: of the mask alone.
  virtual absl::StatusOr<Answers> Try(
      Split split, const std::vector<int64_t>& examples,
      const std::vector<LayerRepair>& repair) = 0;
};

struct RepairTask {
  // By layer, of which each may have several.
  std::vector<LayerRepair> candidates = {};
  Metric metric = Metric::kKl;
  // [split][example], as PruneTask has them.
  std::array<std::vector<std::string>, kSplits> truth = {};
  int64_t most_examples = 256;  // of the select split, to try layers on
  uint64_t seed = 1;
};

struct RepairResult {
  RepairReport report;
  std::vector<LayerRepair> accepted;  // one a layer; empty unless written
};

// From the first layer to the last, a layer's candidate is accepted if
// RepairLoss falls with it, beside those accepted before, and in the place of
// an earlier one of its layer. The result is written if RepairLoss is less on
// the whole select split than without it, too; only then is the test split
// read.
absl::StatusOr<RepairResult> SearchRepair(RepairTask task, RepairTrial* trial);

// How far from the dense answers: KL divergence; of kLogprob, how unlikely the
// target is, in nats a token.
double RepairLoss(const Outcome& outcome, Metric metric);

// Examples times models that SearchRepair asks for, at most; dense answers are
// counted once for each example.
int64_t PlannedAnswers(const RepairTask& task);

}  // namespace headcount
