#include "cli/heads_json.h"

#include <cmath>
#include <utility>
#include <vector>

#include "base/check.h"
#include "prune/prune_units.h"

namespace headcount {
namespace {

std::string MetricName(Metric metric) {
  switch (metric) {
    case Metric::kAccuracy:
      return "accuracy";
    case Metric::kLogprob:
      return "logprob";
    case Metric::kKl:
      return "kl";
  }
  return "";
}

Json TaskJson(const PruneReport& report) {
  Json task = {{"name", report.model},
               {"metric", MetricName(report.test.front().quality.metric)}};
  for (const ReportSplit& split : report.splits) {
    task[split.name + "_sha256"] = split.sha256;
  }
  return task;
}

// A difference as readers expect it, pruned minus dense, without digits that
// no example count can support.
double Rounded(double value) { return std::round(value * 1e6) / 1e6; }

Json EvidenceJson(const PruneReport& report) {
  const ReportRow& row = report.test.front();
  const Comparison& quality = row.quality;
  Json evidence = {
      {"n_test", quality.n},
      {"dense", Rounded(quality.dense)},
      {"pruned", Rounded(quality.pruned)},
      {"delta_ci95",
       {Rounded(-quality.loss95.high), Rounded(-quality.loss95.low)}},
      {"loss_at_most_95", Rounded(quality.loss_bounds.high)},
      {"claimed_loss", Rounded(report.margin)},
      {"claim_holds", Judge(quality, report.margin) == Verdict::kHolds}};
  if (quality.metric == Metric::kAccuracy) {
    evidence["b"] = quality.counts.lost;
    evidence["c"] = quality.counts.gained;
  }
  if (quality.has_kl) {
    evidence["kl_mean"] = Rounded(quality.kl_mean);
    evidence["kl_p95"] = Rounded(quality.kl_p95);
  }
  evidence["kv_bytes_per_token"] = {report.dense_kv_bytes, row.kv_bytes};
  evidence["seed"] = report.seed;
  return evidence;
}

}  // namespace

Json MaskFileJson(const MaskBase& base, Json layers) {
  Json model = {{"arch", base.architecture}};
  if (!base.sha256.empty()) model["sha256"] = base.sha256;
  model["layers"] = base.layers;
  model["q_heads"] = base.query_heads;
  model["kv_heads"] = base.kv_heads;
  model["head_dim"] = base.head_dim;
  return {{"format", "heads/1"},
          {"base", std::move(model)},
          {"weights", "full"},
          {"layers", std::move(layers)}};
}

Json MaskJson(const PruneReport& report, const v1::Model& model,
              const UnitSet& gone, const std::string& sha256) {
  Json layers = Json::array();
  const std::vector<LayerDrop> drops =
      DropsOf(report.layers, report.units, gone);
  for (size_t i = 0; i < drops.size(); ++i) {
    if (drops[i].query_heads.empty()) continue;
    layers.push_back({{"i", i},
                      {"drop_q", drops[i].query_heads},
                      {"drop_kv", drops[i].kv_heads}});
  }
  return MaskFileJson({.architecture = model.architecture(),
                       .sha256 = sha256,
                       .layers = model.num_layers(),
                       .query_heads = report.layers.front().query_heads,
                       .kv_heads = report.layers.front().kv_heads,
                       .head_dim = model.head_dim()},
                      std::move(layers));
}

Json HeadsJson(const PruneReport& report, const v1::Model& model,
               const std::string& sha256) {
  CHECK(!report.test.empty());
  Json mask = MaskJson(report, model, report.gone, sha256);
  mask["task"] = TaskJson(report);
  mask["evidence"] = EvidenceJson(report);
  return mask;
}

void AddRepair(const std::string& tensors, Json* mask) {
  (*mask)["repair"] = {{"kind", "ridge_wo"}, {"tensors", tensors}};
}

}  // namespace headcount
