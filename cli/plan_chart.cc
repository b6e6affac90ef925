#include "cli/plan_chart.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/human.h"
#include "cli/roofline.h"
#include "heads/capacity_plan.h"

namespace headcount {
namespace {

// Of the drawing, and of its plot inside, in units of the SVG.
constexpr double kWidth = 760;
constexpr double kHeight = 400;
constexpr double kLeft = 90;
constexpr double kRight = 110;  // for the names of the lines
constexpr double kTop = 20;
constexpr double kBottom = 60;

// Colours that differ for the colour-blind, too (Okabe and Ito 2008), and read
// on white and on black.
constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1f2328; --faint: #d0d7de;
        --paper: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --faint: #3d444d; --paper: #0d1117; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
       background: var(--paper); max-width: 800px; margin: 2em auto;
       padding: 0 1em; }
svg { width: 100%; height: auto; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
.grid { stroke: var(--faint); stroke-width: 1; }
.line { fill: none; stroke-width: 2.5; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 0.15em 0.8em;
         border-bottom: 1px solid var(--faint); }
.c0 { stroke: #0072b2; } circle.c0 { fill: #0072b2; }
.c1 { stroke: #e69f00; } circle.c1 { fill: #e69f00; }
.c2 { stroke: #009e73; } circle.c2 { fill: #009e73; }
.c3 { stroke: #cc79a7; } circle.c3 { fill: #cc79a7; }
)";

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

// The least of 1, 2, 5, 10, 20, ... that cuts `most` into 6 parts at most.
double TickStep(double most) {
  double step = 1;
  while (true) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (most <= 6 * step * factor) return step * factor;
    }
    step *= 10;
  }
}

using ValueOf = std::function<double(const v1::CapacityPlan&)>;

// Where values lie in the drawing.
struct Scale {
  double top = 1;  // the largest value

  // `kept` is 0.1 to 1, all groups on the left.
  static double X(double kept) {
    return kLeft + (1 - kept) / 0.9 * (kWidth - kLeft - kRight);
  }
  double Y(double value) const {
    return kHeight - kBottom - value / top * (kHeight - kTop - kBottom);
  }
};

std::string Axes(const Scale& scale, double tick, const std::string& y_title) {
  std::string svg;
  for (double value = 0; value <= scale.top; value += tick) {
    absl::StrAppendFormat(
        &svg,
        "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
        "y2=\"%.1f\"/><text x=\"%.1f\" y=\"%.1f\" "
        "text-anchor=\"end\">%s</text>\n",
        kLeft, kWidth - kRight, scale.Y(value), scale.Y(value), kLeft - 8,
        scale.Y(value) + 4, FormatCount(static_cast<int64_t>(value)));
  }
  for (int percent = 100; percent > 0; percent -= 10) {
    absl::StrAppendFormat(&svg,
                          "<text x=\"%.1f\" y=\"%.1f\" "
                          "text-anchor=\"middle\">%d %%</text>\n",
                          Scale::X(percent / 100.0), kHeight - kBottom + 22,
                          percent);
  }
  absl::StrAppendFormat(
      &svg,
      "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">KV groups "
      "kept</text>\n<text transform=\"translate(16 %.1f) rotate(-90)\" "
      "text-anchor=\"middle\">%s</text>\n",
      (kLeft + kWidth - kRight) / 2, kHeight - 12,
      (kTop + kHeight - kBottom) / 2, Escaped(y_title));
  return svg;
}

std::string Curve(const SweepLine& line, size_t index, const Scale& scale,
                  const ValueOf& value, const std::string& unit) {
  const std::string dtype(KvDtypeName(line.dtype));
  std::string points;
  std::string dots;
  for (const SweepPoint& point : line.points) {
    const double y = value(point.plan);
    absl::StrAppendFormat(&points, "%.1f,%.1f ", Scale::X(point.kept),
                          scale.Y(y));
    absl::StrAppendFormat(
        &dots,
        "<circle class=\"c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>%s, "
        "%.0f %% of KV groups: %s %s; %s of KV a token</title></circle>\n",
        index, Scale::X(point.kept), scale.Y(y), dtype, 100 * point.kept,
        FormatCount(static_cast<int64_t>(y)), unit,
        FormatByteSize(point.plan.kv_bytes_per_token()));
  }
  return absl::StrFormat("<polyline class=\"line c%d\" points=\"%s\"/>\n%s",
                         index, points, dots);
}

// Names at the ends of the lines, moved apart where they would overlap.
std::string Names(const std::vector<SweepLine>& lines, const Scale& scale,
                  const ValueOf& value) {
  std::vector<std::pair<double, size_t>> places;
  for (size_t i = 0; i < lines.size(); ++i) {
    places.emplace_back(scale.Y(value(lines[i].points.back().plan)), i);
  }
  // From the bottom up: of equal lines, the first is the lowest.
  std::sort(places.begin(), places.end(), std::greater<>());
  std::string svg;
  double last = kHeight;
  for (const auto& [y, index] : places) {
    last = std::min(y, last - 16);
    absl::StrAppendFormat(
        &svg,
        "<line class=\"line c%d\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
        "y2=\"%.1f\"/><text x=\"%.1f\" y=\"%.1f\">%s</text>\n",
        index, kWidth - kRight + 10, kWidth - kRight + 24, last, last,
        kWidth - kRight + 30, last + 4,
        std::string(KvDtypeName(lines[index].dtype)));
  }
  return svg;
}

std::string Chart(const std::vector<SweepLine>& lines, const std::string& title,
                  const std::string& unit, const ValueOf& value) {
  Scale scale;
  for (const SweepLine& line : lines) {
    for (const SweepPoint& point : line.points) {
      scale.top = std::max(scale.top, value(point.plan));
    }
  }
  const double tick = TickStep(scale.top);
  scale.top = tick * std::ceil(scale.top / tick);
  std::string svg = absl::StrFormat(
      "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">\n",
      kWidth, kHeight, Escaped(title));
  absl::StrAppend(&svg, Axes(scale, tick, title));
  for (size_t i = 0; i < lines.size(); ++i) {
    absl::StrAppend(&svg, Curve(lines[i], i, scale, value, unit));
  }
  return absl::StrCat("<h2>", Escaped(title), "</h2>\n", svg,
                      Names(lines, scale, value), "</svg>\n");
}

std::string ValueTable(const std::vector<SweepLine>& lines,
                       const ValueOf& value) {
  std::string html = "<table><tr><th>KV groups kept</th>";
  for (const SweepLine& line : lines) {
    absl::StrAppend(&html, "<th>", std::string(KvDtypeName(line.dtype)),
                    "</th>");
  }
  absl::StrAppend(&html, "</tr>\n");
  for (size_t i = 0; i < lines.front().points.size(); ++i) {
    absl::StrAppendFormat(&html, "<tr><th>%.0f %%</th>",
                          100 * lines.front().points[i].kept);
    for (const SweepLine& line : lines) {
      absl::StrAppend(
          &html, "<td>",
          FormatCount(static_cast<int64_t>(value(line.points[i].plan))),
          "</td>");
    }
    absl::StrAppend(&html, "</tr>\n");
  }
  return absl::StrCat(html, "</table>\n");
}

}  // namespace

std::string SweepHtml(const std::string& model,
                      const std::vector<SweepLine>& lines,
                      const Device& device) {
  const v1::CapacityPlan& dense = lines.front().points.front().plan;
  const ValueOf sequences = [](const v1::CapacityPlan& plan) {
    return plan.sequences_admitted() == kNoLimit
               ? 0.0
               : static_cast<double>(plan.sequences_admitted());
  };
  const ValueOf rate = [&](const v1::CapacityPlan& plan) {
    return RooflineOf(plan, device).tokens_per_second;
  };
  const std::string context = FormatCount(dense.context_tokens());
  std::string html = absl::StrCat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width\">\n<title>",
      Escaped(model), ": capacity</title>\n<style>", kStyle,
      "</style></head>\n<body>\n<h1>", Escaped(model), " on ",
      Escaped(device.name), "</h1>\n<p>");
  absl::StrAppend(
      &html, "With all heads: ", FormatCount(dense.parameters()),
      " parameters, ", FormatByteSize(dense.weight_bytes()),
      " of weights, a KV pool of ", FormatByteSize(dense.kv_pool_bytes()),
      ". Groups go evenly from all layers; which ones a task can spare is not "
      "considered. Ends of slabs and the watermark are taken off.</p>\n",
      Chart(lines, absl::StrCat("Sequences of ", context, " tokens at once"),
            "sequences", sequences));
  if (rate(dense) > 0) {
    absl::StrAppend(&html, Chart(lines, "Tokens per second, at most",
                                 "tokens per second at most", rate));
  }
  return absl::StrCat(html, "<h2>Sequences</h2>\n",
                      ValueTable(lines, sequences), "</body></html>\n");
}

}  // namespace headcount
