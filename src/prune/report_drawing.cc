#include "prune/report_drawing.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace headcount {
namespace {

// Of the heat map, in pixels.
constexpr int kCellWidth = 46;
constexpr int kCellHeight = 26;
constexpr int kGap = 3;
constexpr int kCross = 5;
constexpr int kLeft = 70;
constexpr int kTop = 40;

// Of the plot.
constexpr int kPlotWidth = 720;
constexpr int kPlotHeight = 340;
constexpr int kPlotLeft = 70;
constexpr int kPlotRight = 20;
constexpr int kPlotTop = 20;
constexpr int kPlotBottom = 52;

std::string Text(double x, double y, const std::string& more,
                 const std::string& text) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y,
                         more, EscapeXml(text));
}

std::string Title(const std::string& text) {
  return absl::StrCat("<title>", EscapeXml(text), "</title>");
}

// 0 to 1 on a logarithmic scale over the scores that there are.
class Shade {
 public:
  explicit Shade(const std::vector<double>& scores) {
    for (const double score : scores) high_ = std::max(high_, score);
    low_ = high_ / 1000;
  }
  double Of(double score) const {
    if (high_ <= 0 || score <= low_) return 0;
    return std::log(score / low_) / std::log(high_ / low_);
  }

 private:
  double high_ = 0;
  double low_ = 0;
};

int ColumnOf(const PruneReport& report, const PruneUnit& unit) {
  return report.units.kind == UnitKind::kGroup ? unit.kv_head
                                               : unit.query_heads.front();
}

int Columns(const PruneReport& report) {
  int columns = 0;
  for (const PrunableLayer& layer : report.layers) {
    columns = std::max(columns, report.units.kind == UnitKind::kGroup
                                    ? layer.kv_heads
                                    : layer.query_heads);
  }
  return columns;
}

// In thousandths of a nat, as short as fits a cell.
std::string ShortKl(double nats) {
  const double milli = 1000 * std::max(0.0, nats);
  return milli < 100 ? absl::StrFormat("%.2g", milli)
                     : absl::StrFormat("%.0f", milli);
}

std::string Cell(const PruneReport& report, size_t index, double shade) {
  const PruneUnit& unit = report.units.units[index];
  const bool pruned = report.gone[index];
  const int column = ColumnOf(report, unit);
  const int x = kLeft + column * (kCellWidth + kGap);
  const int y = kTop + unit.layer * (kCellHeight + kGap);
  const bool group = report.units.kind == UnitKind::kGroup;
  std::string heads;
  for (const int head : unit.query_heads) {
    absl::StrAppend(&heads, heads.empty() ? "" : ", ", head);
  }
  const std::string title = absl::StrFormat(
      "layer %d, %s: %s; KL without it %.6f nats", unit.layer,
      group
          ? absl::StrCat("KV head ", unit.kv_head, " (query heads ", heads, ")")
          : absl::StrCat("query head ", heads, " (KV head ", unit.kv_head, ")"),
      pruned ? "pruned" : "kept", report.unit_kl[index]);
  std::string cell = absl::StrFormat(
      "<g class=\"%s\">%s<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" "
      "rx=\"4\" class=\"cell\"/><rect x=\"%d\" y=\"%d\" width=\"%d\" "
      "height=\"%d\" rx=\"4\" class=\"heat\" fill-opacity=\"%.2f\"/>",
      pruned ? "pruned" : "kept", Title(title), x, y, kCellWidth, kCellHeight,
      x, y, kCellWidth, kCellHeight, 0.06 + 0.84 * shade);
  cell += Text(x + kCellWidth / 2.0, y + kCellHeight / 2.0 + 4,
               shade > 0.55 ? "class=\"on\"" : "class=\"off\"",
               ShortKl(report.unit_kl[index]));
  if (pruned) {
    // In a corner, so that the number can be read.
    const int right = x + kCellWidth - 4;
    const int left = right - kCross;
    const int top = y + 4;
    absl::StrAppendFormat(
        &cell, "<path class=\"cross\" d=\"M%d %dL%d %dM%d %dL%d %d\"/>", left,
        top, right, top + kCross, right, top, left, top + kCross);
  }
  return cell + "</g>\n";
}

// Where values of the plot lie.
class Axes {
 public:
  Axes(double low, double high) : low_(low), high_(high) {}
  // 100 % on the left; what is over it, too.
  double X(double percent) const {
    return kPlotLeft + (100 - std::min(percent, 100.0)) / 100 *
                           (kPlotWidth - kPlotLeft - kPlotRight);
  }
  double Y(double loss) const {
    const double share = (loss - low_) / (high_ - low_);
    return kPlotHeight - kPlotBottom -
           std::clamp(share, 0.0, 1.0) * (kPlotHeight - kPlotTop - kPlotBottom);
  }
  bool Above(double loss) const { return loss > high_; }
  double low() const { return low_; }
  double high() const { return high_; }

 private:
  const double low_;
  const double high_;
};

// Losses as drawn: points of accuracy, or nats.
double Scale(const PruneReport& report) {
  const bool accuracy = !report.path.empty() &&
                        report.path.front().quality.metric == Metric::kAccuracy;
  return accuracy ? 100 : 1;
}

double PercentKept(const PruneReport& report, const ReportRow& row) {
  const bool bytes = report.units.kind == UnitKind::kGroup;
  const auto kept = static_cast<double>(bytes ? row.kv_bytes : row.query_heads);
  const auto dense = static_cast<double>(bytes ? report.dense_kv_bytes
                                               : report.dense_query_heads);
  return dense > 0 ? 100 * kept / dense : 0;
}

// Room for what matters: the margin and everything up to the chosen mask.
Axes MakeAxes(const PruneReport& report) {
  double low = -report.margin;
  double high = 3 * report.margin;
  const auto see = [&](const ReportRow& row) {
    low = std::min(low, row.quality.loss95.low);
    high = std::max(high, 1.1 * row.quality.loss95.high);
  };
  for (int i = 0; i <= report.chosen; ++i) {
    see(report.path[static_cast<size_t>(i)]);
  }
  if (!report.test.empty()) see(report.test.front());
  if (high - low < 1e-9) high = low + 1e-9;
  return {Scale(report) * low, Scale(report) * high};
}

std::string RowTitle(const PruneReport& report, const ReportRow& row) {
  const Comparison& quality = row.quality;
  return absl::StrFormat(
      "%s: %.1f %% kept, loss %s (95 %% interval %s to %s), n = %d", row.name,
      PercentKept(report, row), FormatLoss(quality.metric, quality.loss),
      FormatLoss(quality.metric, quality.loss95.low),
      FormatLoss(quality.metric, quality.loss95.high), quality.n);
}

// A point with its interval, at `x`.
std::string Mark(const PruneReport& report, const Axes& axes,
                 const ReportRow& row, double x, const std::string& kind) {
  const double scale = Scale(report);
  const double loss = scale * row.quality.loss;
  std::string mark =
      absl::StrFormat("<g class=\"%s\">%s", kind, Title(RowTitle(report, row)));
  absl::StrAppendFormat(&mark,
                        "<path class=\"whisker\" d=\"M%.1f %.1fV%.1f\"/>", x,
                        axes.Y(scale * row.quality.loss95.low),
                        axes.Y(scale * row.quality.loss95.high));
  absl::StrAppendFormat(&mark, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"/>", x,
                        axes.Y(loss), kind == "chosen" ? "7" : "4.5");
  mark += "</g>\n";
  return mark;
}

// What stands over the picture, beside each other at its upper edge.
std::string AboveEdge(const PruneReport& report, const Axes& axes) {
  std::string text;
  int lines = 0;
  for (size_t i = 1; i < report.test.size(); ++i) {
    const ReportRow& row = report.test[i];
    const double loss = Scale(report) * row.quality.loss;
    if (!axes.Above(loss)) continue;
    const double x = axes.X(PercentKept(report, row));
    // Away from the nearer side.
    const bool left = x > kPlotWidth / 2.0;
    text +=
        Text(x + (left ? -8 : 8), axes.Y(axes.high()) + 4 + 15 * lines++,
             left ? "class=\"note\" text-anchor=\"end\"" : "class=\"note\"",
             absl::StrCat("\xE2\x86\x91 ", row.name, ": ",
                          FormatLoss(row.quality.metric, row.quality.loss)));
  }
  return text;
}

std::string DrawAxes(const PruneReport& report, const Axes& axes,
                     const char* below) {
  std::string text;
  for (int percent = 0; percent <= 100; percent += 20) {
    const double x = axes.X(percent);
    absl::StrAppendFormat(&text, "<path class=\"grid\" d=\"M%.1f %dV%d\"/>", x,
                          kPlotTop, kPlotHeight - kPlotBottom);
    text += Text(x, kPlotHeight - kPlotBottom + 18,
                 "class=\"tick\" text-anchor=\"middle\"",
                 absl::StrCat(percent, " %"));
  }
  for (int i = 0; i <= 4; ++i) {
    const double loss = axes.low() + (axes.high() - axes.low()) * i / 4;
    const double y = axes.Y(loss);
    absl::StrAppendFormat(&text, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>",
                          kPlotLeft, y, kPlotWidth - kPlotRight);
    text += Text(kPlotLeft - 8, y + 4, "class=\"tick\" text-anchor=\"end\"",
                 absl::StrFormat("%.3g", loss));
  }
  absl::StrAppendFormat(&text, "<path class=\"zero\" d=\"M%d %.1fH%d\"/>",
                        kPlotLeft, axes.Y(0), kPlotWidth - kPlotRight);
  const double limit = axes.Y(Scale(report) * report.margin);
  absl::StrAppendFormat(&text, "<path class=\"limit\" d=\"M%d %.1fH%d\"/>",
                        kPlotLeft, limit, kPlotWidth - kPlotRight);
  text += Text(kPlotWidth - kPlotRight, limit - 5,
               "class=\"note\" text-anchor=\"end\"", "limit of the claim");
  text += Text((kPlotLeft + kPlotWidth - kPlotRight) / 2.0, kPlotHeight - 10,
               "class=\"axis\" text-anchor=\"middle\"", below);
  absl::StrAppendFormat(
      &text,
      "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate(16 "
      "%d) rotate(-90)\">%s</text>\n",
      (kPlotTop + kPlotHeight - kPlotBottom) / 2,
      Scale(report) > 1 ? "accuracy lost, points" : "nats lost");
  return text;
}

std::string OpenPlot(const char* label) {
  return absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" "
      "aria-label=\"%s\" viewBox=\"0 0 %d %d\" width=\"%d\" "
      "height=\"%d\">\n",
      label, kPlotWidth, kPlotHeight, kPlotWidth, kPlotHeight);
}

}  // namespace

std::string EscapeXml(const std::string& text) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return result;
}

std::string DrawHeatMap(const PruneReport& report) {
  const int columns = Columns(report);
  // At least as wide as its caption.
  const int width =
      std::max(kLeft + columns * (kCellWidth + kGap) + 10, kLeft + 290);
  const int height =
      kTop + static_cast<int>(report.layers.size()) * (kCellHeight + kGap) + 10;
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" "
      "aria-label=\"Heat map of layers and heads\" viewBox=\"0 0 %d %d\" "
      "width=\"%d\" height=\"%d\">\n",
      width, height, width, height);
  svg += Text(kLeft, 14, "class=\"axis\"",
              report.units.kind == UnitKind::kGroup
                  ? "KV head (with the query heads that it serves)"
                  : "query head");
  for (int column = 0; column < columns; ++column) {
    svg += Text(kLeft + column * (kCellWidth + kGap) + kCellWidth / 2.0, 32,
                "class=\"tick\" text-anchor=\"middle\"", absl::StrCat(column));
  }
  for (size_t layer = 0; layer < report.layers.size(); ++layer) {
    const auto row = static_cast<int>(layer);
    svg += absl::StrFormat(
        "<g>%s",
        Title(absl::StrFormat(
            "layer %d: KL without all of its attention %.6f nats", row,
            layer < report.layer_kl.size() ? report.layer_kl[layer] : 0.0)));
    svg += Text(
        kLeft - 10, kTop + row * (kCellHeight + kGap) + kCellHeight / 2.0 + 4,
        "class=\"tick\" text-anchor=\"end\"", absl::StrCat("layer ", row));
    svg += "</g>\n";
  }
  const Shade shade(report.unit_kl);
  for (size_t i = 0; i < report.units.units.size(); ++i) {
    svg += Cell(report, i, shade.Of(report.unit_kl[i]));
  }
  return svg + "</svg>\n";
}

std::string DrawQuality(const PruneReport& report) {
  const Axes axes = MakeAxes(report);
  std::string svg = OpenPlot("Quality against what is kept");
  svg += DrawAxes(report, axes,
                  report.units.kind == UnitKind::kGroup
                      ? "KV bytes a token, of the dense model"
                      : "query heads, of the dense model");
  std::string line = absl::StrFormat("M%.1f %.1f", axes.X(100), axes.Y(0));
  for (const ReportRow& row : report.path) {
    absl::StrAppendFormat(&line, "L%.1f %.1f", axes.X(PercentKept(report, row)),
                          axes.Y(Scale(report) * row.quality.loss));
  }
  absl::StrAppend(&svg, "<path class=\"path\" d=\"", line, "\"/>\n");
  for (const ReportRow& row : report.path) {
    svg += Mark(report, axes, row, axes.X(PercentKept(report, row)), "select");
  }
  for (size_t i = report.test.size(); i-- > 0;) {
    const ReportRow& row = report.test[i];
    svg += Mark(report, axes, row, axes.X(PercentKept(report, row)),
                i == 0 ? "chosen" : "control");
  }
  svg += AboveEdge(report, axes);
  return svg + "</svg>\n";
}

std::string DrawLatency(const PruneReport& report) {
  const Axes axes = MakeAxes(report);
  std::string svg = OpenPlot("Quality against latency");
  svg += DrawAxes(report, axes, "latency, of the dense model");
  const auto mark = [&](const ReportRow& row, const std::string& kind) {
    if (row.latency.texts == 0) return;
    absl::StrAppendFormat(&svg,
                          "<path class=\"whisker\" d=\"M%.1f %.1fH%.1f\"/>",
                          axes.X(100 * row.latency.ratio95.low),
                          axes.Y(Scale(report) * row.quality.loss),
                          axes.X(100 * row.latency.ratio95.high));
    svg += Mark(report, axes, row, axes.X(100 * row.latency.ratio), kind);
  };
  for (const ReportRow& row : report.path) mark(row, "select");
  if (!report.test.empty()) mark(report.test.front(), "chosen");
  return svg + "</svg>\n";
}

}  // namespace headcount
