#include "cli/served_repair.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cli/progress.h"
#include "cli/rpc_head_moments.h"
#include "prune/repair_file.h"

namespace headcount {
namespace {

// `status`, about a layer.
absl::Status InLayer(int layer, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("repair of layer ", layer,
                                                  ": ", status.message()));
}

absl::StatusOr<LayerRepair> RefitLayer(const LayerMoments& layer,
                                       const std::vector<int>& gone,
                                       const LocalWeights& weights) {
  const auto width = layer.moments.mean.size();
  const auto dim = static_cast<size_t>(weights.config.head_dim);
  if (width != layer.query_heads.size() * dim) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the served model has heads of another size than --weights: ", width,
        " elements in ", layer.query_heads.size(), " heads"));
  }
  const absl::StatusOr<OutputProjection> dense =
      ReadOutputProjection(weights, layer.layer, layer.query_heads);
  if (!dense.ok()) return dense.status();
  std::vector<bool> kept;
  for (const int head : layer.query_heads) {
    kept.insert(kept.end(), dim,
                !std::binary_search(gone.begin(), gone.end(), head));
  }
  absl::StatusOr<OutputProjection> refit =
      RefitOutput(*dense, layer.moments, kept);
  if (!refit.ok()) return refit.status();
  return LayerRepair{.layer = layer.layer, .projection = *std::move(refit)};
}

// Of the layers of which heads go.
absl::StatusOr<std::vector<LayerRepair>> RefitLayers(
    const std::vector<LayerMoments>& layers,
    const std::vector<LayerDrop>& drops, const LocalWeights& weights) {
  std::vector<LayerRepair> refits;
  for (const LayerMoments& layer : layers) {
    const std::vector<int>& gone =
        drops[static_cast<size_t>(layer.layer)].query_heads;
    const bool loses = std::any_of(
        layer.query_heads.begin(), layer.query_heads.end(), [&](int head) {
          return std::binary_search(gone.begin(), gone.end(), head);
        });
    if (!loses) continue;
    absl::StatusOr<LayerRepair> refit = RefitLayer(layer, gone, weights);
    if (!refit.ok()) return InLayer(layer.layer, refit.status());
    refits.push_back(*std::move(refit));
  }
  return refits;
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
      source_.mask, repair.empty() ? "" : RepairFile(repair), *source_.client,
      source_.calls);
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
                                        int64_t most_examples,
                                        const LocalWeights& weights,
                                        const ServedRepairTrial::Source& source,
                                        Console& console) {
  const std::vector<LabelledText>& texts = source.data->of(Split::kRank);
  absl::StatusOr<std::vector<LayerMoments>> moments;
  {
    Progress progress(console, "texts for the refit",
                      static_cast<int64_t>(texts.size()));
    moments =
        CollectMoments(*source.client, source.calls, source.dense, texts,
                       task.metric, [&](int64_t done) { progress.Show(done); });
  }
  if (!moments.ok()) return moments.status();
  absl::StatusOr<std::vector<LayerRepair>> refits = RefitLayers(
      *moments, DropsOf(report.layers, report.units, report.gone), weights);
  if (!refits.ok()) return refits.status();
  RepairTask repair{.candidates = *std::move(refits),
                    .metric = task.metric,
                    .truth = task.truth,
                    .most_examples = most_examples,
                    .seed = task.seed};
  Progress progress(console, "answers with a repair", PlannedAnswers(repair));
  ServedRepairTrial trial(source, [&](int64_t done) { progress.Show(done); });
  absl::StatusOr<RepairResult> result = SearchRepair(std::move(repair), &trial);
  if (result.ok() && !moments->empty()) {
    result->report.tokens = moments->front().moments.tokens;
  }
  return result;
}

}  // namespace headcount
