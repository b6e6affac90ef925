#include "prune/comparison.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/human.h"

namespace headcount {
namespace {

// A loss this close under a limit is at it: 1.1 points and the mean of losses
// are rounded.
constexpr double kLeastRoom = 1e-9;

double LossOf(const Outcome& dense, const Outcome& pruned, Metric metric) {
  switch (metric) {
    case Metric::kAccuracy:
      return (dense.right ? 1.0 : 0.0) - (pruned.right ? 1.0 : 0.0);
    case Metric::kLogprob:
      return dense.logprob - pruned.logprob;
    case Metric::kKl:
      return pruned.kl;
  }
  return 0;
}

// The mean's, by the normal distribution.
Bounds NormalBounds(const std::vector<double>& values, double z) {
  const double mean = MeanOf(values);
  const auto n = static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  // One value says nothing about the spread.
  const double error =
      values.size() < 2 ? INFINITY : std::sqrt(squares / (n - 1) / n);
  return {.low = mean - z * error, .high = mean + z * error};
}

ClassRecall WorstRecall(const std::vector<Outcome>& dense,
                        const std::vector<Outcome>& pruned,
                        const std::vector<std::string>& truth) {
  std::map<std::string, ClassRecall> classes;
  for (size_t i = 0; i < truth.size(); ++i) {
    ClassRecall& recall = classes[truth[i]];
    recall.label = truth[i];
    recall.dense += dense[i].right ? 1 : 0;
    recall.pruned += pruned[i].right ? 1 : 0;
    ++recall.n;
  }
  ClassRecall worst;
  for (auto& [label, recall] : classes) {
    recall.dense /= static_cast<double>(recall.n);
    recall.pruned /= static_cast<double>(recall.n);
    if (worst.n == 0 ||
        recall.dense - recall.pruned > worst.dense - worst.pruned) {
      worst = recall;
    }
  }
  return worst;
}

bool AreLabels(const std::vector<Outcome>& outcomes) {
  return std::none_of(
      outcomes.begin(), outcomes.end(),
      [](const Outcome& outcome) { return outcome.label.empty(); });
}

double AgreementOf(const std::vector<Outcome>& dense,
                   const std::vector<Outcome>& pruned) {
  int64_t agreed = 0;
  for (size_t i = 0; i < dense.size(); ++i) {
    agreed += dense[i].label == pruned[i].label ? 1 : 0;
  }
  return static_cast<double>(agreed) / static_cast<double>(dense.size());
}

void CompareTruth(const std::vector<Outcome>& dense,
                  const std::vector<Outcome>& pruned, Comparison* result) {
  double dense_right = 0;
  double pruned_right = 0;
  result->counts.n = result->n;
  for (size_t i = 0; i < dense.size(); ++i) {
    result->counts.lost += dense[i].right && !pruned[i].right ? 1 : 0;
    result->counts.gained += !dense[i].right && pruned[i].right ? 1 : 0;
    dense_right += dense[i].right ? 1 : 0;
    pruned_right += pruned[i].right ? 1 : 0;
  }
  const auto n = static_cast<double>(result->n);
  result->dense = dense_right / n;
  result->pruned = pruned_right / n;
  result->mcnemar = McNemarExact(result->counts);
  result->loss_bounds = TangoBounds(result->counts, kOneSided95);
}

// Examples that would bound the loss by `margin`, if they differ as much as
// these do.
int64_t ExamplesNeeded(const Comparison& comparison, double margin) {
  const auto n = static_cast<double>(comparison.n);
  if (comparison.metric == Metric::kAccuracy) {
    const auto differ = static_cast<double>(std::max<int64_t>(
        1, comparison.counts.lost + comparison.counts.gained));
    return ExamplesToBound(differ / n, margin);
  }
  const double error =
      (comparison.loss_bounds.high - comparison.loss) / kOneSided95;
  if (!std::isfinite(error)) return comparison.n + 1;
  return ExamplesToBound(error * error * n, margin);
}

// "about 542 examples".
std::string InWords(int64_t examples) {
  if (examples == kNoExamplesDo) return "no number of examples";
  return absl::StrCat("about ", FormatCount(examples), " examples");
}

}  // namespace

Comparison Compare(const std::vector<Outcome>& dense,
                   const std::vector<Outcome>& pruned,
                   const std::vector<std::string>& truth, Metric metric,
                   uint64_t seed) {
  CHECK(!dense.empty() && dense.size() == pruned.size());
  CHECK(metric != Metric::kAccuracy || truth.size() == dense.size());
  Comparison result{.metric = metric};
  result.n = static_cast<int64_t>(dense.size());
  std::vector<double> losses;
  std::vector<double> kls;
  for (size_t i = 0; i < dense.size(); ++i) {
    losses.push_back(LossOf(dense[i], pruned[i], metric));
    kls.push_back(pruned[i].kl);
    result.dense += dense[i].logprob / static_cast<double>(result.n);
    result.pruned += pruned[i].logprob / static_cast<double>(result.n);
  }
  result.loss = MeanOf(losses);
  result.loss95 = BootstrapMean(losses, seed);
  result.kl_mean = MeanOf(kls);
  result.kl95 = BootstrapMean(kls, seed);
  result.kl_p95 = QuantileOf(kls, 0.95);
  result.has_agreement =
      metric == Metric::kAccuracy || (AreLabels(dense) && AreLabels(pruned));
  if (result.has_agreement) result.agreement = AgreementOf(dense, pruned);
  if (metric == Metric::kAccuracy) {
    CompareTruth(dense, pruned, &result);
    result.worst = WorstRecall(dense, pruned, truth);
  } else {
    result.loss_bounds = NormalBounds(losses, kOneSided95);
  }
  return result;
}

Verdict Judge(const Comparison& comparison, double margin) {
  if (comparison.loss_bounds.high <= margin) return Verdict::kHolds;
  if (comparison.loss_bounds.low > margin) return Verdict::kFails;
  return Verdict::kNotEnoughData;
}

std::string Claim(const Comparison& comparison, double margin) {
  const std::string limit = FormatLoss(comparison.metric, margin);
  const std::string most =
      FormatLoss(comparison.metric, comparison.loss_bounds.high);
  const std::string least =
      FormatLoss(comparison.metric, comparison.loss_bounds.low);
  const std::string measured =
      absl::StrCat("measured ", FormatLoss(comparison.metric, comparison.loss),
                   " on ", FormatCount(comparison.n), " examples");
  switch (Judge(comparison, margin)) {
    case Verdict::kHolds:
      return absl::StrCat("The loss is at most ", limit, ": ", measured,
                          ", with 95 % confidence at most ", most, ".");
    case Verdict::kFails:
      return absl::StrCat("The loss is more than ", limit, ": ", measured,
                          ", with 95 % confidence at least ", least, ".");
    case Verdict::kNotEnoughData:
      break;
  }
  std::string text = absl::StrCat("A loss of at most ", limit,
                                  ": not enough data to claim this (", measured,
                                  ", it may be up to ", most, "). ");
  if (comparison.loss <= 0) {
    absl::StrAppend(&text, "If answers go on to differ as often as here, ",
                    InWords(ExamplesNeeded(comparison, margin)),
                    " can bound a loss of nothing.");
  } else if (margin - comparison.loss >= kLeastRoom) {
    absl::StrAppend(
        &text, "If the loss stays as measured, ",
        InWords(ExamplesNeeded(comparison, margin - comparison.loss)),
        " can show it.");
  } else {
    text += "What was measured is over the limit already.";
  }
  return text;
}

std::string FormatMetric(Metric metric, double value) {
  if (metric == Metric::kAccuracy) {
    return absl::StrFormat("%.2f %%", 100 * value);
  }
  return absl::StrFormat("%.4f nats", value);
}

std::string FormatLoss(Metric metric, double loss) {
  if (metric == Metric::kAccuracy) {
    return absl::StrFormat("%.2f points", 100 * loss);
  }
  return absl::StrFormat("%.4f nats", loss);
}

int ChooseOnPath(const std::vector<Comparison>& path, double margin) {
  int chosen = -1;
  for (const Comparison& comparison : path) {
    if (Judge(comparison, margin) != Verdict::kHolds) break;
    ++chosen;
  }
  return chosen;
}

}  // namespace headcount
