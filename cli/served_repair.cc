#include "cli/served_repair.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cli/progress.h"
#include "cli/rpc_head_moments.h"

namespace headcount {
namespace {

// The refits of the layers of which heads go.
class Refits {
 public:
  Refits(const PruneReport& report, const LocalWeights& weights)
      : drops_(DropsOf(report.layers, report.units, report.gone)),
        weights_(weights) {}

  absl::Status Add(const std::vector<LayerMoments>& layers,
                   const std::string& refit_on);
  // By layer, of each in the order of Add.
  std::vector<LayerRepair> Take();

 private:
  absl::StatusOr<OutputProjection> Refit(const LayerMoments& layer,
                                         const std::vector<bool>& stays) const;

  const std::vector<LayerDrop> drops_;
  const LocalWeights& weights_;
  std::vector<LayerRepair> refits_;
};

absl::Status Refits::Add(const std::vector<LayerMoments>& layers,
                         const std::string& refit_on) {
  for (const LayerMoments& layer : layers) {
    const std::vector<int>& gone =
        drops_[static_cast<size_t>(layer.layer)].query_heads;
    std::vector<bool> stays;  // [head that ran]
    for (const int head : layer.query_heads) {
      stays.push_back(!std::binary_search(gone.begin(), gone.end(), head));
    }
    if (std::find(stays.begin(), stays.end(), false) == stays.end()) continue;
    absl::StatusOr<OutputProjection> refit = Refit(layer, stays);
    if (!refit.ok()) {
      return absl::Status(
          refit.status().code(),
          absl::StrCat("repair of layer ", layer.layer, " on ", refit_on, ": ",
                       refit.status().message()));
    }
    refits_.push_back({.layer = layer.layer,
                       .refit_on = refit_on,
                       .projection = *std::move(refit)});
  }
  return absl::OkStatus();
}

absl::StatusOr<OutputProjection> Refits::Refit(
    const LayerMoments& layer, const std::vector<bool>& stays) const {
  const auto dim = static_cast<size_t>(weights_.config.head_dim);
  if (layer.moments.mean.size() != stays.size() * dim) {
    return absl::InvalidArgumentError(
        "the served model has heads of another size than --weights");
  }
  const absl::StatusOr<OutputProjection> dense =
      ReadOutputProjection(weights_, layer.layer, layer.query_heads);
  if (!dense.ok()) return dense.status();
  std::vector<bool> kept;  // [column]
  for (const bool head : stays) kept.insert(kept.end(), dim, head);
  return RefitOutput(*dense, layer.moments, kept);
}

std::vector<LayerRepair> Refits::Take() {
  std::stable_sort(refits_.begin(), refits_.end(),
                   [](const LayerRepair& a, const LayerRepair& b) {
                     return a.layer < b.layer;
                   });
  return std::move(refits_);
}

// Those that heads were ranked on, and more.
std::vector<LabelledText> TextsToRefitOn(const PruneData& data, int64_t most) {
  std::vector<LabelledText> texts = data.of(Split::kRank);
  for (const LabelledText& text : data.not_ranked) texts.push_back(text);
  if (static_cast<int64_t>(texts.size()) > most) {
    texts.resize(static_cast<size_t>(most));
  }
  return texts;
}

// On all tokens, which heads of later layers read, and on those that the
// answers come from.
absl::Status RefitOn(const std::vector<LabelledText>& texts,
                     const ServedRepairTrial::Source& source, Console& console,
                     Refits* refits) {
  const auto count = static_cast<int64_t>(texts.size());
  Progress progress(console, "texts to refit from", 2 * count);
  for (const bool answers_only : {false, true}) {
    const absl::StatusOr<std::vector<LayerMoments>> moments =
        CollectMoments(*source.client, source.calls,
                       {.model = source.dense,
                        .texts = &texts,
                        .metric = source.data->metric,
                        .answers_only = answers_only},
                       [&](int64_t done) {
                         progress.Show(answers_only ? count + done : done);
                       });
    if (!moments.ok()) return moments.status();
    absl::Status status =
        refits->Add(*moments, answers_only ? "answers" : "all tokens");
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

ServedRepairTrial::ServedRepairTrial(Source source,
                                     std::function<void(int64_t)> on_progress)
    : source_(std::move(source)),
      on_progress_(std::move(on_progress)),
      asking_(*source_.client, source_.calls) {}

absl::StatusOr<ServedAnswer> ServedRepairTrial::Ask(const std::string& model,
                                                    const LabelledText& text) {
  absl::StatusOr<ServedAnswer> answer =
      asking_.Ask(model, text, source_.data->metric);
  on_progress_(++answers_);
  return answer;
}

absl::StatusOr<RepairTrial::Answers> ServedRepairTrial::Try(
    Split split, const std::vector<int64_t>& examples,
    const std::vector<LayerRepair>& repair) {
  const absl::Status served = source_.candidate->Serve(
      source_.mask, repair, *source_.client, source_.calls);
  if (!served.ok()) return served;
  Answers answers;
  for (const int64_t example : examples) {
    const LabelledText& text =
        source_.data->of(split)[static_cast<size_t>(example)];
    auto dense = dense_.find({split, example});
    if (dense == dense_.end()) {
      absl::StatusOr<ServedAnswer> answer = Ask(source_.dense, text);
      if (!answer.ok()) return answer.status();
      dense =
          dense_.emplace(std::pair(split, example), *std::move(answer)).first;
    }
    absl::StatusOr<ServedAnswer> repaired =
        Ask(source_.candidate->spec().name(), text);
    if (!repaired.ok()) return repaired.status();
    repaired->outcome.kl = Divergence(dense->second, *repaired);
    answers.dense.push_back(dense->second.outcome);
    answers.repaired.push_back(std::move(repaired->outcome));
  }
  return answers;
}

absl::StatusOr<RepairResult> RepairMask(const PruneReport& report,
                                        const PruneTask& task,
                                        const RepairOptions& options,
                                        const LocalWeights& weights,
                                        const ServedRepairTrial::Source& source,
                                        Console& console) {
  const std::vector<LabelledText> texts =
      TextsToRefitOn(*source.data, options.texts);
  Refits refits(report, weights);
  absl::Status status = RefitOn(texts, source, console, &refits);
  if (!status.ok()) return status;
  RepairTask repair{.candidates = refits.Take(),
                    .metric = task.metric,
                    .truth = task.truth,
                    .most_examples = options.examples,
                    .seed = task.seed};
  Progress progress(console, "answers with a repair", PlannedAnswers(repair));
  ServedRepairTrial trial(source, [&](int64_t done) { progress.Show(done); });
  absl::StatusOr<RepairResult> result = SearchRepair(std::move(repair), &trial);
  if (result.ok()) {
    result->report.texts = static_cast<int64_t>(texts.size());
  }
  return result;
}

}  // namespace headcount
