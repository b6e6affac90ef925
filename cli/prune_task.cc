#include "cli/prune_task.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/prune_flags.h"
#include "cli/rpc_gate_scorer.h"
#include "format/sha256.h"

namespace headcount {

std::string TargetInWords(const PruneTarget& target, Metric metric,
                          UnitKind unit) {
  if (!target.keep) {
    return absl::StrCat("as little as a loss of ",
                        FormatLoss(metric, target.max_loss), " allows");
  }
  return absl::StrFormat("%.4g %% of the %s", 100 * *target.keep,
                         unit == UnitKind::kGroup ? "KV bytes" : "query heads");
}

absl::StatusOr<PruneTask> MakeTask(const PruneOptions& options,
                                   const v1::Model& model,
                                   const PruneData& data,
                                   const LocalWeights* weights) {
  PruneTask task;
  task.model = model.name();
  task.layers = PrunableModelOf(model);
  task.unit = options.unit == "head" ? UnitKind::kHead : UnitKind::kGroup;
  if (options.kv_bytes && task.unit == UnitKind::kHead) {
    return absl::InvalidArgumentError(
        "--kv-bytes: single query heads free no bytes of the cache; use --keep "
        "or --unit group");
  }
  task.target.keep = options.kv_bytes ? options.kv_bytes : options.keep;
  const absl::StatusOr<double> loss = ParseLoss(options.max_loss, data.metric);
  if (!loss.ok()) return loss.status();
  task.target.max_loss = *loss;
  task.target.step = options.step;
  task.metric = data.metric;
  task.seed = options.seed;
  for (size_t split = 0; split < data.splits.size(); ++split) {
    for (const LabelledText& text : data.splits[split]) {
      task.truth[split].push_back(text.label);
    }
  }
  if (weights != nullptr) {
    const ModelConfig& config = weights->config;
    task.widths = ModelWidths{.hidden = config.hidden,
                              .head_dim = config.head_dim,
                              .vocab = config.vocab,
                              .ffn = {config.ffn.begin(), config.ffn.end()}};
    if (task.widths->ffn.size() != task.layers.size()) {
      return absl::InvalidArgumentError(absl::StrCat("--weights: has ",
                                                     task.widths->ffn.size(),
                                                     " layers, but the served "
                                                     "model has ",
                                                     task.layers.size()));
    }
  }
  return task;
}

absl::StatusOr<std::string> RunHash(const v1::Model& model,
                                    const PruneTask& task,
                                    const std::vector<ReportSplit>& splits,
                                    const std::string& sha256) {
  std::string text = absl::StrCat(
      model.name(), " ", model.architecture(), " ", model.vocab_size(), " ",
      model.weight_bytes(), " ", model.kv_dtype(), " ", model.precision(), " ",
      task.unit == UnitKind::kGroup ? "group" : "head", " ", sha256, "\n");
  for (const std::string& label : model.labels()) {
    // With its length: a label may hold any character.
    absl::StrAppend(&text, label.size(), " ", label, "\n");
  }
  for (const v1::LayerHeads& layer : model.layers()) {
    absl::StrAppend(&text, absl::StrJoin(layer.query_heads(), ","), "\n");
    for (const v1::KvHead& head : layer.kv_heads()) {
      absl::StrAppend(&text, head.index(), " ", head.dtype(), " ",
                      head.window(), " ", head.sink(), "\n");
    }
  }
  for (const ReportSplit& split : splits) {
    absl::StrAppend(&text, split.sha256, "\n");
  }
  return Sha256Hex(text);
}

absl::StatusOr<std::vector<ReportSplit>> DescribeSplits(const PruneData& data) {
  std::vector<ReportSplit> splits;
  for (int i = 0; i < kSplits; ++i) {
    const auto split = static_cast<Split>(i);
    const absl::StatusOr<std::string> hash = HashOf(data.of(split));
    if (!hash.ok()) return hash.status();
    splits.push_back({.name = SplitName(split),
                      .examples = static_cast<int64_t>(data.of(split).size()),
                      .sha256 = *hash});
  }
  return splits;
}

}  // namespace headcount
