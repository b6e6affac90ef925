#include "prune/prune_report.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/human.h"
#include "prune/report_drawing.h"
#include "prune/report_html.h"

namespace headcount {
namespace {

constexpr char kStyle[] = R"(
:root { color-scheme: light dark; --ground: #ffffff; --text: #1b2430;
  --soft: #5b6675; --line: #d8dee6; --heat: #0b6e99; --heat-ink: #ffffff;
  --pruned: #b4451f; --control: #8a5a00; --card: #f5f7fa; }
@media (prefers-color-scheme: dark) { :root { --ground: #12161c;
  --text: #e6ebf1; --soft: #9aa6b5; --line: #313a46; --heat: #58b8e0;
  --heat-ink: #0c1218; --pruned: #ff8a5c; --control: #e0b04c;
  --card: #1b212a; } }
body { background: var(--ground); color: var(--text); margin: 0 auto;
  max-width: 960px; padding: 24px 20px 60px;
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0 0 4px; }
h2 { font-size: 17px; margin: 36px 0 8px; }
p { margin: 6px 0; max-width: 72ch; }
.soft { color: var(--soft); }
.claim { background: var(--card); border-left: 4px solid var(--heat);
  padding: 10px 14px; margin: 16px 0; }
.claim.open { border-color: var(--pruned); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
tr.chosen td { font-weight: 600; }
svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); }
svg .tick, svg .note { fill: var(--soft); }
svg .cell { fill: var(--ground); stroke: var(--line); }
svg .heat { fill: var(--heat); }
svg .on { fill: var(--heat-ink); text-anchor: middle; font-size: 11px; }
svg .off { fill: var(--text); text-anchor: middle; font-size: 11px; }
svg .pruned .cell { stroke: var(--pruned); stroke-width: 3; }
svg .cross { stroke: var(--pruned); stroke-width: 2; fill: none; }
svg .grid { stroke: var(--line); fill: none; }
svg .zero { stroke: var(--soft); fill: none; }
svg .limit { stroke: var(--pruned); stroke-dasharray: 5 4; fill: none; }
svg .path { stroke: var(--heat); stroke-width: 1.5; fill: none; }
svg .whisker { stroke: var(--soft); stroke-width: 1.5; fill: none; }
svg .select circle { fill: var(--heat); }
svg .chosen circle { fill: none; stroke: var(--pruned); stroke-width: 3; }
svg .control circle { fill: var(--control); }
)";

std::string Share(int64_t part, int64_t whole) {
  if (whole == 0) return "-";
  return absl::StrFormat("%.1f %%", 100.0 * static_cast<double>(part) /
                                        static_cast<double>(whole));
}

std::string Times(double ratio) {
  return ratio > 0 ? absl::StrFormat("%.2f\xC3\x97", ratio) : "not known";
}

std::string MemoryCeiling(const PruneReport& report, const ReportRow& row) {
  if (row.kv_bytes == 0) return "no KV cache";
  return Times(static_cast<double>(report.dense_kv_bytes) /
               static_cast<double>(row.kv_bytes));
}

// Quality and, in the same row, the most that it can buy.
std::string QualityTable(const PruneReport& report,
                         const std::vector<ReportRow>& rows, int marked) {
  const bool labels =
      !rows.empty() && rows.front().quality.metric == Metric::kAccuracy;
  std::string table = "<div class=\"scroll\"><table>\n";
  table += HtmlRow(
      {"mask", "KV bytes", "query heads", "metric", "loss", "95 % interval",
       "at most (95 %)", labels ? "McNemar p" : "n", "KL mean", "KL 95 %",
       "latency", "sequences at most", "speed at most"},
      "th");
  for (size_t i = 0; i < rows.size(); ++i) {
    const ReportRow& row = rows[i];
    const Comparison& q = row.quality;
    table += HtmlRow(
        {row.name, Share(row.kv_bytes, report.dense_kv_bytes),
         Share(row.query_heads, report.dense_query_heads),
         q.metric == Metric::kKl ? "-" : FormatMetric(q.metric, q.pruned),
         FormatLoss(q.metric, q.loss),
         absl::StrCat(FormatLoss(q.metric, q.loss95.low), " to ",
                      FormatLoss(q.metric, q.loss95.high)),
         FormatLoss(q.metric, q.loss_bounds.high),
         labels ? absl::StrFormat("%.3f", q.mcnemar) : FormatCount(q.n),
         q.has_kl ? absl::StrFormat("%.4f", q.kl_mean) : "-",
         q.has_kl ? absl::StrFormat("%.4f", q.kl_p95) : "-",
         row.latency.texts > 0
             ? absl::StrFormat("%.2f (%.2f to %.2f)", row.latency.ratio,
                               row.latency.ratio95.low,
                               row.latency.ratio95.high)
             : "-",
         MemoryCeiling(report, row), Times(row.speedup_ceiling)},
        "td", static_cast<int>(i) == marked ? "chosen" : "");
  }
  return table + "</table></div>\n";
}

std::string Head(const PruneReport& report) {
  std::string text = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\" "
      "xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta "
      "charset=\"utf-8\"/>\n<meta name=\"viewport\" "
      "content=\"width=device-width\"/>\n<title>Pruning ",
      EscapeXml(report.model), "</title>\n<style>", kStyle,
      "</style>\n</head>\n<body>\n<h1>Pruning ", EscapeXml(report.model),
      "</h1>\n");
  text += HtmlParagraph(absl::StrCat("Asked for: ", report.target, ". ",
                                     CountPruned(report), "."),
                        "soft");
  return text;
}

std::string Result(const PruneReport& report) {
  if (report.test.empty()) {
    return HtmlParagraph("No mask was chosen, so the test split was not read.",
                         "claim open");
  }
  const ReportRow& row = report.test.front();
  const bool holds = Judge(row.quality, report.margin) == Verdict::kHolds;
  std::string text = HtmlParagraph(Claim(row.quality, report.margin),
                                   holds ? "claim" : "claim open");
  const Comparison& q = row.quality;
  if (q.metric == Metric::kAccuracy) {
    text += HtmlParagraph(absl::StrFormat(
        "Accuracy on the test split: %s dense, %s pruned. Answers lost: %d, "
        "gained: %d; %.2f %% of the labels are the dense model's. Class that "
        "falls most: %s, recall %.2f %% to %.2f %% of %d.",
        FormatMetric(q.metric, q.dense), FormatMetric(q.metric, q.pruned),
        q.counts.lost, q.counts.gained, 100 * q.agreement, q.worst.label,
        100 * q.worst.dense, 100 * q.worst.pruned, q.worst.n));
  }
  text += HtmlParagraph(absl::StrCat(
      "KV cache of a token: ", FormatByteSize(report.dense_kv_bytes), " to ",
      FormatByteSize(row.kv_bytes), ". Where the KV pool is what binds, ",
      MemoryCeiling(report, row),
      " the sequences fit at most; where arithmetic binds, at most ",
      Times(row.speedup_ceiling), " the speed",
      row.speedup_ceiling > 0
          ? absl::StrCat(" at ", report.ceiling_tokens, " tokens of context")
          : " (the width of the MLP was not given: see --weights)",
      "."));
  return text;
}

std::string RenderLatency(const PruneReport& report) {
  const auto measured =
      std::find_if(report.path.begin(), report.path.end(),
                   [](const ReportRow& row) { return row.latency.texts > 0; });
  if (measured == report.path.end()) {
    return HtmlParagraph(
        "Latency was not measured: a server that prune asks cannot load masks. "
        "With --model PATH it serves each mask of the path itself.",
        "soft");
  }
  return absl::StrCat(
      "<h2>Quality against latency</h2>\n",
      HtmlParagraph(
          absl::StrFormat("Masks of the path as served, one text at a time, in "
                          "turns with the dense model: geometric mean of the "
                          "ratio over %d texts, bars are 95 %% intervals "
                          "(paired bootstrap). What is slower than the dense "
                          "model stands at the left edge.",
                          measured->latency.texts),
          "soft"),
      "<div class=\"scroll\">", DrawLatency(report), "</div>\n");
}

std::string Splits(const PruneReport& report) {
  std::string text = "<h2>Data</h2>\n<div class=\"scroll\"><table>\n";
  text += HtmlRow({"split", "examples", "SHA-256 of the texts"}, "th");
  for (const ReportSplit& split : report.splits) {
    text +=
        HtmlRow({split.name, FormatCount(split.examples), split.sha256}, "td");
  }
  text += "</table></div>\n";
  text += HtmlParagraph(absl::StrFormat(
      "Heads were ranked on the first split, the mask was chosen on the "
      "second, the third was read once. Seed %d; scores taken again in %d "
      "rounds; %s texts computed, each under one setting. Kept units of "
      "masks from resampled ranking examples: Jaccard index %.2f with these, "
      "by scores of single units.",
      report.seed, report.rescored, FormatCount(report.forwards),
      report.stability));
  for (const std::string& note : report.notes) text += HtmlParagraph(note);
  return text;
}

}  // namespace

std::string CountPruned(const PruneReport& report) {
  const auto pruned = std::count(report.gone.begin(), report.gone.end(), true);
  const auto all = static_cast<int64_t>(report.gone.size());
  return absl::StrCat(
      pruned, " of ", all,
      report.units.kind == UnitKind::kGroup ? " KV groups" : " query heads",
      " pruned, ", all - pruned, " kept");
}

void AddRepair(RepairReport repair, PruneReport* report) {
  if (repair.written) {
    ReportRow row = report->test.front();
    row.name = "this mask, repaired";
    row.quality = OnSplit(repair.repaired, Split::kTest);
    report->test.insert(report->test.begin(), std::move(row));
  }
  report->repair = std::move(repair);
}

std::string RenderReport(const PruneReport& report) {
  std::string page = Head(report);
  page += Result(report);
  page += "<h2>What each head is worth</h2>\n";
  page += HtmlParagraph(
      "Kullback-Leibler divergence from the dense answers without the head, "
      "in thousandths of a nat; darker is worth more, a red frame is pruned.",
      "soft");
  page += absl::StrCat("<div class=\"scroll\">", DrawHeatMap(report),
                       "</div>\n<h2>Quality against what is kept</h2>\n");
  page += HtmlParagraph(
      "Dots on the line: the path on the select split, from which the mask was "
      "chosen. Ring: the mask on the test split. Other dots: controls on the "
      "test split. Bars: 95 % intervals (paired bootstrap).",
      "soft");
  page +=
      absl::StrCat("<div class=\"scroll\">", DrawQuality(report), "</div>\n");
  page += RenderLatency(report);
  if (!report.test.empty()) {
    page += "<h2>On the test split</h2>\n";
    page += QualityTable(report, report.test, 0);
    page += HtmlParagraph(
        "A mask that is no better than its controls has found nothing: then "
        "the model has heads to spare, and any would do.",
        "soft");
  }
  if (report.repair) page += RenderRepair(*report.repair);
  page += "<h2>On the select split</h2>\n";
  page += QualityTable(report, report.path, report.chosen);
  page += HtmlParagraph(
      "Masks were tested in this order up to the first that does not hold. "
      "'At most' bounds the loss from above, with 95 % confidence. The last "
      "two columns are arithmetic: no server can get more out of the mask.",
      "soft");
  page += Splits(report);
  return page + "</body>\n</html>\n";
}

}  // namespace headcount
