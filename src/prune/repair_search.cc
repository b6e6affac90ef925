#include "prune/repair_search.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "prune/seeded_random.h"

namespace headcount {
namespace {

std::vector<int64_t> All(int64_t count) {
  std::vector<int64_t> examples(static_cast<size_t>(count));
  std::iota(examples.begin(), examples.end(), 0);
  return examples;
}

// In the order of the split, whatever order they were drawn in.
std::vector<int64_t> Drawn(int64_t count, int64_t most, uint64_t seed) {
  std::vector<int64_t> examples = All(count);
  if (count <= most) return examples;
  SeededRandom(seed).Shuffle(&examples);
  examples.resize(static_cast<size_t>(most));
  std::sort(examples.begin(), examples.end());
  return examples;
}

// One search: what its steps share.
class Search {
 public:
  Search(RepairTask task, RepairTrial* trial)
      : task_(std::move(task)), trial_(trial) {}

  absl::StatusOr<RepairResult> Execute();

 private:
  int64_t SizeOf(Split split) const {
    return static_cast<int64_t>(task_.truth[static_cast<size_t>(split)].size());
  }
  absl::StatusOr<double> MeanLoss(const std::vector<int64_t>& examples,
                                  const std::vector<LayerRepair>& repair);
  absl::Status TryLayers();
  absl::Status Offer(LayerRepair candidate,
                     const std::vector<int64_t>& examples, double* best);
  absl::Status CompareOn(Split split);

  RepairTask task_;
  RepairTrial* const trial_;
  RepairResult result_;
};

absl::StatusOr<double> Search::MeanLoss(
    const std::vector<int64_t>& examples,
    const std::vector<LayerRepair>& repair) {
  const absl::StatusOr<RepairTrial::Answers> answers =
      trial_->Try(Split::kSelect, examples, repair);
  if (!answers.ok()) return answers.status();
  std::vector<double> losses;
  for (const Outcome& outcome : answers->repaired) {
    losses.push_back(RepairLoss(outcome, task_.metric));
  }
  return MeanOf(losses);
}

absl::Status Search::TryLayers() {
  const std::vector<int64_t> examples =
      Drawn(SizeOf(Split::kSelect), task_.most_examples, task_.seed);
  result_.report.tried_on = static_cast<int64_t>(examples.size());
  absl::StatusOr<double> best = MeanLoss(examples, {});
  if (!best.ok()) return best.status();
  for (LayerRepair& candidate : task_.candidates) {
    absl::Status status = Offer(std::move(candidate), examples, &*best);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Search::Offer(LayerRepair candidate,
                           const std::vector<int64_t>& examples, double* best) {
  std::vector<LayerRepair>& accepted = result_.accepted;
  std::vector<RepairStep>& steps = result_.report.steps;
  RepairStep step{.layer = candidate.layer,
                  .refit_on = candidate.refit_on,
                  .without = *best};
  std::optional<LayerRepair> before;
  if (!accepted.empty() && accepted.back().layer == candidate.layer) {
    before = std::move(accepted.back());
    accepted.pop_back();
  }
  accepted.push_back(std::move(candidate));
  const absl::StatusOr<double> loss = MeanLoss(examples, accepted);
  if (!loss.ok()) return loss.status();
  step.with = *loss;
  step.accepted = *loss < *best;
  if (step.accepted) {
    *best = *loss;
    for (RepairStep& other : steps) {
      if (other.layer == step.layer) other.accepted = false;
    }
  } else {
    accepted.pop_back();
    if (before) accepted.push_back(*std::move(before));
  }
  steps.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status Search::CompareOn(Split split) {
  const std::vector<int64_t> examples = All(SizeOf(split));
  const absl::StatusOr<RepairTrial::Answers> alone =
      trial_->Try(split, examples, {});
  if (!alone.ok()) return alone.status();
  const absl::StatusOr<RepairTrial::Answers> repaired =
      trial_->Try(split, examples, result_.accepted);
  if (!repaired.ok()) return repaired.status();
  const auto at = static_cast<size_t>(split);
  const std::vector<std::string>& truth = task_.truth[at];
  const auto compare = [&](const std::vector<Outcome>& before,
                           const std::vector<Outcome>& after) {
    Comparison result = Compare(before, after, truth, task_.metric, task_.seed);
    result.has_kl = task_.metric != Metric::kLogprob;
    return result;
  };
  RepairReport& report = result_.report;
  report.mask_alone[at] = compare(alone->dense, alone->repaired);
  report.repaired[at] = compare(repaired->dense, repaired->repaired);
  // Their loss is the divergence itself: the difference of the two is wanted.
  std::vector<Outcome> rest = repaired->repaired;
  for (size_t i = 0; i < rest.size(); ++i) rest[i].kl -= alone->repaired[i].kl;
  report.gain[at] = compare(alone->repaired, rest);
  return absl::OkStatus();
}

absl::StatusOr<RepairResult> Search::Execute() {
  result_.report.metric = task_.metric;
  if (absl::Status status = TryLayers(); !status.ok()) return status;
  if (result_.accepted.empty()) return std::move(result_);
  if (absl::Status status = CompareOn(Split::kSelect); !status.ok()) {
    return status;
  }
  const Comparison& gain =
      result_.report.gain[static_cast<size_t>(Split::kSelect)];
  result_.report.written =
      (task_.metric == Metric::kLogprob ? gain.loss : gain.kl_mean) < 0;
  if (!result_.report.written) {
    result_.accepted.clear();
    return std::move(result_);
  }
  if (absl::Status status = CompareOn(Split::kTest); !status.ok()) {
    return status;
  }
  return std::move(result_);
}

}  // namespace

double RepairLoss(const Outcome& outcome, Metric metric) {
  return metric == Metric::kLogprob ? -outcome.logprob : outcome.kl;
}

absl::StatusOr<RepairResult> SearchRepair(RepairTask task, RepairTrial* trial) {
  return Search(std::move(task), trial).Execute();
}

int64_t PlannedAnswers(const RepairTask& task) {
  const auto size = [&task](Split split) {
    return static_cast<int64_t>(task.truth[static_cast<size_t>(split)].size());
  };
  const int64_t tried = std::min(size(Split::kSelect), task.most_examples);
  return tried * (1 + static_cast<int64_t>(task.candidates.size())) +
         3 * (size(Split::kSelect) + size(Split::kTest));
}

}  // namespace headcount
