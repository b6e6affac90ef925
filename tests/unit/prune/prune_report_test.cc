#include "prune/prune_report.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prune/report_drawing.h"
#include "synthetic_scorer.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

int64_t Count(const std::string& text, const std::string& part) {
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

// Every element that is opened is closed, in order, and every & begins a known
// entity: all that an XML parser asks of this page. Returns what is wrong.
std::string Malformed(const std::string& page) {
  std::vector<std::string> open;
  for (size_t at = 0; at < page.size(); ++at) {
    if (page[at] == '&') {
      bool known = false;
      for (const char* entity : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"}) {
        known =
            known || page.compare(at, std::string(entity).size(), entity) == 0;
      }
      if (!known) return "a bare & at " + page.substr(at, 20);
    }
    if (page[at] == '>') return "a bare > at " + page.substr(at, 20);
    if (page[at] != '<') continue;
    const size_t end = page.find('>', at);
    if (end == std::string::npos) return "no end of a tag";
    const std::string tag = page.substr(at + 1, end - at - 1);
    at = end;
    if (absl::StartsWith(tag, "!DOCTYPE") || absl::EndsWith(tag, "/")) continue;
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return "closes " + tag;
      open.pop_back();
    } else {
      open.push_back(tag.substr(0, tag.find_first_of(" \n")));
    }
    if (Count(tag, "\"") % 2 != 0) return "quotes in " + tag;
  }
  return open.empty() ? "" : "never closed: " + open.back();
}

ReportRow MakeRow(const std::string& name, size_t n, size_t lost) {
  std::vector<Outcome> dense(n);
  std::vector<Outcome> pruned(n);
  std::vector<std::string> truth(n, "spam");
  for (size_t i = 0; i < n; ++i) {
    dense[i] = {.right = true, .label = "spam"};
    pruned[i] = {.kl = 0.02, .right = i >= lost, .label = "spam"};
  }
  ReportRow row{.name = name, .kv_bytes = 600, .query_heads = 18};
  row.quality = Compare(dense, pruned, truth, Metric::kAccuracy, 1);
  return row;
}

PruneReport MakeReport(size_t n) {
  PruneReport report;
  report.model = "mail <b>&\"";
  report.target = "60 % of the KV bytes kept";
  report.margin = 0.01;
  report.layers = UniformModel(3, 4, 3);
  report.units = MakeUnits(report.layers, UnitKind::kGroup);
  report.unit_kl.assign(12, 0.01);
  report.unit_kl[5] = 0.7;
  report.layer_kl.assign(3, 0.5);
  report.gone.assign(12, false);
  for (const size_t i : {0, 3, 4, 8, 11}) report.gone[i] = true;
  report.dense_kv_bytes = 1'200;
  report.dense_query_heads = 36;
  report.path = {MakeRow("10 %", n, 0), MakeRow("40 %", n, n / 50)};
  report.chosen = 1;
  report.test = {MakeRow("chosen", n, n / 50), MakeRow("random", n, n / 3)};
  report.splits = {{"rank", 64, "abc"}};
  return report;
}

TEST(RenderReport, IsWellFormed) {
  EXPECT_EQ(Malformed(RenderReport(MakeReport(100))), "");
  PruneReport nothing = MakeReport(100);
  nothing.chosen = -1;
  nothing.test.clear();
  EXPECT_EQ(Malformed(RenderReport(nothing)), "");
}

RepairReport MakeRepair(bool written) {
  RepairReport repair{.written = written};
  repair.steps = {{.layer = 0, .without = 0.2, .with = 0.1, .accepted = true},
                  {.layer = 2, .without = 0.1, .with = 0.3}};
  for (const Split split : {Split::kSelect, Split::kTest}) {
    const auto at = static_cast<size_t>(split);
    repair.mask_alone[at] = MakeRow("", 100, 9).quality;
    repair.repaired[at] = MakeRow("", 100, 4).quality;
    repair.gain[at] = MakeRow("", 100, 5).quality;
  }
  return repair;
}

TEST(RenderReport, WithARepairIsWellFormed) {
  for (const bool written : {false, true}) {
    PruneReport report = MakeReport(100);
    AddRepair(MakeRepair(written), &report);
    const std::string page = RenderReport(report);
    EXPECT_EQ(Malformed(page), "");
    EXPECT_THAT(page, HasSubstr("<h2>Repair</h2>"));
  }
}

TEST(AddRepair, PutsWhatIsWrittenFirst) {
  PruneReport report = MakeReport(100);
  AddRepair(MakeRepair(false), &report);
  EXPECT_EQ(report.test.front().name, "chosen");
  AddRepair(MakeRepair(true), &report);
  ASSERT_EQ(report.test.size(), 3u);
  EXPECT_EQ(report.test[0].name, "this mask, repaired");
  EXPECT_EQ(report.test[0].quality.counts.lost, 4);
  EXPECT_EQ(report.test[0].kv_bytes, report.test[1].kv_bytes);
  EXPECT_EQ(report.test[1].name, "chosen");
}

TEST(RenderReport, TheParserOfThisTestFindsMistakes) {
  EXPECT_NE(Malformed("<p>a & b</p>"), "");
  EXPECT_NE(Malformed("<p><b></p></b>"), "");
  EXPECT_NE(Malformed("<p>"), "");
  EXPECT_NE(Malformed("<p a=\"></p>"), "");
}

TEST(RenderReport, EscapesNames) {
  const std::string page = RenderReport(MakeReport(100));
  EXPECT_THAT(page, HasSubstr("mail &lt;b&gt;&amp;&quot;"));
  EXPECT_THAT(page, Not(HasSubstr("<b>")));
}

TEST(RenderReport, CountsWhatIsPruned) {
  const std::string page = RenderReport(MakeReport(100));
  EXPECT_THAT(page, HasSubstr("5 of 12 KV groups pruned, 7 kept"));
  EXPECT_EQ(Count(page, "<g class=\"pruned\">"), 5);
  EXPECT_EQ(Count(page, "<g class=\"kept\">"), 7);
  EXPECT_EQ(Count(page, "class=\"cross\""), 5);
}

TEST(RenderReport, TitlesEveryCell) {
  const std::string page = RenderReport(MakeReport(100));
  EXPECT_THAT(
      page, HasSubstr("<title>layer 1, KV head 1 (query heads 3, 4, 5): kept; "
                      "KL without it 0.700000 nats</title>"));
  EXPECT_THAT(page, HasSubstr("<title>layer 2: KL without all of its"));
}

TEST(RenderReport, SaysWhenThereIsNotEnoughData) {
  EXPECT_THAT(RenderReport(MakeReport(40)),
              HasSubstr("not enough data to claim this"));
  PruneReport enough = MakeReport(400);
  enough.test.front() = MakeRow("chosen", 400, 0);
  EXPECT_THAT(RenderReport(enough),
              Not(HasSubstr("not enough data to claim this")));
}

TEST(RenderReport, PutsTheCeilingBesideEveryQualityNumber) {
  PruneReport report = MakeReport(100);
  report.test[0].speedup_ceiling = 1.213;
  const std::string page = RenderReport(report);
  EXPECT_THAT(page, HasSubstr("<td>1.21\xC3\x97</td>"));
  // 1,200 bytes to 600, in each row of both tables.
  EXPECT_EQ(Count(page, "<td>2.00\xC3\x97</td>"), 4);
}

TEST(RenderReport, NeedsNothingFromElsewhere) {
  const std::string page = RenderReport(MakeReport(100));
  EXPECT_THAT(page, Not(HasSubstr("<script")));
  EXPECT_THAT(page, Not(HasSubstr("src=")));
  EXPECT_THAT(page, Not(HasSubstr("href=")));
  EXPECT_THAT(page, Not(HasSubstr("url(")));
}

TEST(DrawQuality, WritesWhatLiesAboveAtTheEdge) {
  EXPECT_THAT(DrawQuality(MakeReport(100)), HasSubstr("random: 33.00 points"));
}

TEST(PruneReportTest, ShowsLatencyWhereItWasMeasured) {
  PruneReport report = MakeReport(400);
  EXPECT_THAT(RenderReport(report), HasSubstr("Latency was not measured"));
  for (ReportRow& row : report.path) {
    row.latency = CompareLatency({10, 20, 30}, {5, 11, 14}, 1);
  }
  const std::string page = RenderReport(report);
  EXPECT_EQ(Malformed(page), "");
  EXPECT_THAT(page, HasSubstr("<h2>Quality against latency</h2>"));
  EXPECT_THAT(page, HasSubstr("ratio over 3 texts"));
  EXPECT_THAT(page, HasSubstr("0.50 (0.47 to 0.55)"));
}

// Geometric means by hand: (0.5 * 0.55 * 14/30)^(1/3).
TEST(CompareLatencyTest, LooksAtTextsInPairs) {
  const LatencyRatio ratio = CompareLatency({10, 20, 30}, {5, 11, 14}, 1);
  EXPECT_EQ(ratio.texts, 3);
  EXPECT_NEAR(ratio.ratio, 0.50439, 1e-4);
  EXPECT_GE(ratio.ratio95.low, 14 / 30.0 - 1e-9);
  EXPECT_LE(ratio.ratio95.high, 0.55 + 1e-9);
  EXPECT_LT(ratio.ratio95.low, ratio.ratio95.high);
  EXPECT_EQ(ratio.dense_p50, 20);
  EXPECT_EQ(ratio.pruned_p50, 11);
  // Long texts that take both long say nothing of the mask.
  EXPECT_NEAR(CompareLatency({1, 1000}, {0.5, 500}, 1).ratio, 0.5, 1e-9);
}

}  // namespace
}  // namespace headcount
