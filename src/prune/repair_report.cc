#include "prune/repair_report.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/human.h"
#include "prune/report_html.h"

namespace headcount {
namespace {

std::string QualityOf(const Comparison& comparison) {
  std::string text = comparison.metric == Metric::kKl
                         ? ""
                         : FormatMetric(comparison.metric, comparison.pruned);
  if (comparison.has_kl) {
    absl::StrAppendFormat(&text, "%sKL %.4f", text.empty() ? "" : ", ",
                          comparison.kl_mean);
  }
  return text;
}

std::string SplitRow(const std::string& split, const RepairReport& report,
                     Split which) {
  const Comparison& gain = OnSplit(report.gain, which);
  const bool labels = gain.metric == Metric::kAccuracy;
  return HtmlRow(
      {split, FormatCount(gain.n), QualityOf(OnSplit(report.mask_alone, which)),
       QualityOf(OnSplit(report.repaired, which)),
       FormatLoss(gain.metric, gain.loss),
       absl::StrCat(FormatLoss(gain.metric, gain.loss95.low), " to ",
                    FormatLoss(gain.metric, gain.loss95.high)),
       gain.has_kl ? absl::StrFormat("%.4f (%.4f to %.4f)", gain.kl_mean,
                                     gain.kl95.low, gain.kl95.high)
                   : "-",
       labels ? absl::StrFormat("%.3f", gain.mcnemar) : "-"},
      "td");
}

std::string WhatCame(const RepairStep& step) {
  if (step.accepted) return "accepted";
  return step.with < step.without ? "gave way to a better one"
                                  : "left as it was";
}

}  // namespace

std::string CountRepaired(const RepairReport& report) {
  std::string layers;
  int64_t accepted = 0;
  for (const RepairStep& step : report.steps) {
    if (!step.accepted) continue;
    ++accepted;
    absl::StrAppend(&layers, layers.empty() ? "" : ", ", step.layer);
  }
  std::set<int> tried;
  for (const RepairStep& step : report.steps) tried.insert(step.layer);
  const std::string of = absl::StrCat(" of ", tried.size(), " layers");
  if (report.written) {
    return absl::StrCat("Output projections refit in ", accepted, of, " (",
                        layers, ")");
  }
  if (accepted == 0) {
    return absl::StrCat("No repair was written: in none", of,
                        " did a refit output projection bring the answers "
                        "nearer to the dense ones");
  }
  return absl::StrCat("No repair was written: what helped in ", accepted, of,
                      " on ", report.tried_on,
                      " examples did not on the whole select split");
}

std::string RepairLossName(const RepairReport& report) {
  return report.metric == Metric::kLogprob
             ? "negative log-likelihood of the target, nats a token"
             : "KL divergence from the dense answers, nats";
}

std::string RenderRepair(const RepairReport& report) {
  std::string page = "<h2>Repair</h2>\n";
  page += HtmlParagraph(absl::StrCat(
      CountRepaired(report), ". Refit from ", FormatCount(report.texts),
      " texts of the rank split, tried on ", FormatCount(report.tried_on),
      " examples of the select split, layer by layer."));
  page += "<div class=\"scroll\"><table>\n";
  page += HtmlRow({"layer", "refit on", "without", "with", ""}, "th");
  for (const RepairStep& step : report.steps) {
    page += HtmlRow({absl::StrCat(step.layer), step.refit_on,
                     absl::StrFormat("%.6f", step.without),
                     absl::StrFormat("%.6f", step.with), WhatCame(step)},
                    "td", step.accepted && report.written ? "chosen" : "");
  }
  page += "</table></div>\n";
  page +=
      HtmlParagraph(absl::StrCat("Mean ", RepairLossName(report), "."), "soft");
  if (OnSplit(report.gain, Split::kSelect).n == 0) return page;
  page += "<div class=\"scroll\"><table>\n";
  page += HtmlRow(
      {"split", "n", "mask alone", "mask and repair", "loss by the repair",
       "95 % interval", "KL by the repair (95 % interval)", "McNemar p"},
      "th");
  page += SplitRow("select", report, Split::kSelect);
  if (report.written) page += SplitRow("test", report, Split::kTest);
  page += "</table></div>\n";
  page += HtmlParagraph(
      "Below 0, the repair gains. Layers were chosen on the select split, so "
      "only the test split says what it is worth.",
      "soft");
  return page;
}

}  // namespace headcount
