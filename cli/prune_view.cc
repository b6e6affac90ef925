#include "cli/prune_view.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/table.h"

namespace headcount {
namespace {

std::string Percent(int64_t part, int64_t whole) {
  if (whole == 0) return "-";
  return absl::StrFormat("%.1f %%", 100.0 * static_cast<double>(part) /
                                        static_cast<double>(whole));
}

std::string Times(double ratio) {
  return ratio > 0 ? absl::StrFormat("%.2fx", ratio) : "-";
}

std::string RenderRows(const PruneReport& report,
                       const std::vector<ReportRow>& rows) {
  Table table({{"MASK"},
               {"KV BYTES", Align::kRight},
               {"HEADS", Align::kRight},
               {"METRIC", Align::kRight},
               {"LOSS", Align::kRight},
               {"95 % INTERVAL", Align::kRight},
               {"KL", Align::kRight},
               {"LATENCY", Align::kRight},
               {"MEMORY <=", Align::kRight},
               {"SPEED <=", Align::kRight}});
  for (const ReportRow& row : rows) {
    const Comparison& q = row.quality;
    const double memory = row.kv_bytes > 0
                              ? static_cast<double>(report.dense_kv_bytes) /
                                    static_cast<double>(row.kv_bytes)
                              : 0;
    table.AddRow(
        {row.name, Percent(row.kv_bytes, report.dense_kv_bytes),
         Percent(row.query_heads, report.dense_query_heads),
         q.metric == Metric::kKl ? "-" : FormatMetric(q.metric, q.pruned),
         FormatLoss(q.metric, q.loss),
         absl::StrCat(FormatLoss(q.metric, q.loss95.low), " to ",
                      FormatLoss(q.metric, q.loss95.high)),
         q.has_kl ? absl::StrFormat("%.4f", q.kl_mean) : "-",
         row.latency.texts > 0 ? Times(row.latency.ratio) : "-", Times(memory),
         Times(row.speedup_ceiling)});
  }
  return table.Render();
}

std::string RenderRepairRows(const RepairReport& repair) {
  if (OnSplit(repair.gain, Split::kSelect).n == 0) return "";
  Table table({{"SPLIT"},
               {"N", Align::kRight},
               {"LOSS BY REPAIR", Align::kRight},
               {"95 % INTERVAL", Align::kRight},
               {"KL ALONE", Align::kRight},
               {"KL REPAIRED", Align::kRight}});
  for (const Split split : {Split::kSelect, Split::kTest}) {
    const Comparison& gain = OnSplit(repair.gain, split);
    if (gain.n == 0) continue;
    const auto kl = [&](const Comparison& comparison) {
      return gain.has_kl ? absl::StrFormat("%.4f", comparison.kl_mean) : "-";
    };
    table.AddRow({split == Split::kSelect ? "select" : "test",
                  absl::StrCat(gain.n), FormatLoss(gain.metric, gain.loss),
                  absl::StrCat(FormatLoss(gain.metric, gain.loss95.low), " to ",
                               FormatLoss(gain.metric, gain.loss95.high)),
                  kl(OnSplit(repair.mask_alone, split)),
                  kl(OnSplit(repair.repaired, split))});
  }
  return "\n" + table.Render();
}

Json RepairJson(const RepairReport& repair) {
  Json steps = Json::array();
  for (const RepairStep& step : repair.steps) {
    steps.push_back({{"layer", step.layer},
                     {"refit_on", step.refit_on},
                     {"without", step.without},
                     {"with", step.with},
                     {"accepted", step.accepted}});
  }
  Json json = {
      {"written", repair.written},
      {"texts", repair.texts},
      {"tried_on", repair.tried_on},
      {"compared",
       repair.metric == Metric::kLogprob ? "negative log-likelihood" : "kl"},
      {"layers", steps}};
  for (const Split split : {Split::kSelect, Split::kTest}) {
    if (OnSplit(repair.gain, split).n == 0) continue;
    json[split == Split::kSelect ? "select" : "test"] = {
        {"mask_alone", ComparisonJson(OnSplit(repair.mask_alone, split))},
        {"repaired", ComparisonJson(OnSplit(repair.repaired, split))},
        {"by_repair", ComparisonJson(OnSplit(repair.gain, split))}};
  }
  return json;
}

Json RowsJson(const std::vector<ReportRow>& rows) {
  Json json = Json::array();
  for (const ReportRow& row : rows) {
    Json entry = {
        {"mask", row.name},
        {"units_pruned", std::count(row.gone.begin(), row.gone.end(), true)},
        {"kv_bytes_per_token", row.kv_bytes},
        {"query_heads", row.query_heads}};
    if (row.speedup_ceiling > 0) entry["speed_at_most"] = row.speedup_ceiling;
    if (row.latency.texts > 0) {
      entry["latency"] = {
          {"ratio", row.latency.ratio},
          {"ratio_ci95", {row.latency.ratio95.low, row.latency.ratio95.high}},
          {"p50_ms", {row.latency.dense_p50, row.latency.pruned_p50}},
          {"texts", row.latency.texts}};
    }
    entry.update(ComparisonJson(row.quality));
    json.push_back(entry);
  }
  return json;
}

}  // namespace

Json ComparisonJson(const Comparison& c) {
  Json json = {{"n", c.n}};
  if (c.metric != Metric::kKl) {
    json["dense"] = c.dense;
    json["pruned"] = c.pruned;
  }
  json["loss"] = c.loss;
  json["loss_ci95"] = {c.loss95.low, c.loss95.high};
  json["loss_at_most_95"] = c.loss_bounds.high;
  if (c.metric == Metric::kAccuracy) {
    json["lost"] = c.counts.lost;
    json["gained"] = c.counts.gained;
    json["mcnemar_p"] = c.mcnemar;
    json["worst_class"] = {{"label", c.worst.label},
                           {"dense_recall", c.worst.dense},
                           {"pruned_recall", c.worst.pruned},
                           {"n", c.worst.n}};
  }
  if (c.has_agreement) json["agreement"] = c.agreement;
  if (!c.has_kl) return json;
  json["kl_mean"] = c.kl_mean;
  json["kl_ci95"] = {c.kl95.low, c.kl95.high};
  json["kl_p95"] = c.kl_p95;
  return json;
}

std::string RenderPrune(const PruneReport& report) {
  std::string text =
      absl::StrCat(report.model, ": ", CountPruned(report), "\n\n");
  if (report.test.empty()) {
    return absl::StrCat(text, "Select split:\n",
                        RenderRows(report, report.path));
  }
  const Comparison& quality = report.test.front().quality;
  absl::StrAppend(&text, "Test split, ", quality.n, " examples");
  if (quality.metric != Metric::kKl) {
    absl::StrAppend(&text,
                    "; dense: ", FormatMetric(quality.metric, quality.dense));
  }
  absl::StrAppend(&text, "\n", RenderRows(report, report.test), "\n",
                  Claim(quality, report.margin), "\n");
  if (report.repair) {
    absl::StrAppend(&text, CountRepaired(*report.repair), ".\n",
                    RenderRepairRows(*report.repair));
  }
  for (const std::string& note : report.notes) {
    absl::StrAppend(&text, note, "\n");
  }
  return text;
}

Json PruneJson(const PruneReport& report) {
  const auto pruned = std::count(report.gone.begin(), report.gone.end(), true);
  Json json = {
      {"model", report.model},
      {"target", report.target},
      {"unit", report.units.kind == UnitKind::kGroup ? "group" : "head"},
      {"units", report.gone.size()},
      {"units_pruned", pruned},
      {"kv_bytes_per_token_dense", report.dense_kv_bytes},
      {"query_heads_dense", report.dense_query_heads},
      {"seed", report.seed},
      {"stability", report.stability},
      {"rescored", report.rescored},
      {"forwards", report.forwards},
      {"path", RowsJson(report.path)},
      {"chosen", report.chosen},
      {"test", RowsJson(report.test)}};
  if (!report.test.empty()) {
    const Comparison& quality = report.test.front().quality;
    json["claim"] = Claim(quality, report.margin);
    json["claim_holds"] = Judge(quality, report.margin) == Verdict::kHolds;
  }
  if (report.repair) json["repair"] = RepairJson(*report.repair);
  json["notes"] = report.notes;
  return json;
}

}  // namespace headcount
