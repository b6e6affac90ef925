#include "prune/prune_pipeline.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "synthetic_scorer.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

// 2 layers of 4 groups. A label is lost in one example of a thousand for each
// milli-nat.
class LabelScorer final : public GateScorer {
 public:
  absl::StatusOr<ScoreTable> Score(
      Split split, const std::vector<UnitSet>& settings) override {
    ++calls[static_cast<size_t>(split)];
    absl::StatusOr<ScoreTable> table = arithmetic.Score(split, settings);
    for (Outcome& outcome : table->dense) {
      outcome.right = true;
      outcome.label = "spam";
    }
    for (size_t s = 0; s < settings.size(); ++s) {
      const double lost = 1'000 * arithmetic.Kl(settings[s]);
      for (size_t e = 0; e < kExamples; ++e) {
        Outcome& outcome = table->settings[s][e];
        outcome.right = static_cast<double>(e) + 0.5 >= lost;
        outcome.label = outcome.right ? "spam" : "ham";
      }
    }
    return table;
  }

  static constexpr size_t kExamples = 1'000;
  std::array<int, kSplits> calls = {};
  SyntheticScorer arithmetic{
      {0.3, 0.0, 0.002, 0.05, 0.0, 0.001, 0.4, 0.1}, {}, kExamples};
};

PruneTask MakeTask() {
  PruneTask task;
  task.model = "mail";
  task.layers = UniformModel(2, 4, 2);
  task.metric = Metric::kAccuracy;
  for (std::vector<std::string>& truth : task.truth) {
    truth.assign(LabelScorer::kExamples, "spam");
  }
  return task;
}

TEST(Prune, SavesAsMuchAsTheLossAllows) {
  LabelScorer scorer;
  const absl::StatusOr<PruneReport> report = Prune(MakeTask(), &scorer);
  ASSERT_TRUE(report.ok()) << report.status();
  // Free, free, 1 and 2 of 1,000: four units. The next loses 50.
  EXPECT_EQ(report->gone,
            (UnitSet{false, true, true, false, true, true, false, false}));
  EXPECT_EQ(report->test.front().kv_bytes, 400);
  EXPECT_EQ(report->dense_kv_bytes, 800);
  EXPECT_EQ(report->test.front().quality.counts.lost, 3);
  EXPECT_EQ(Judge(report->test.front().quality, 0.01), Verdict::kHolds);
  // Only the chosen mask and its controls ever saw the test split, together.
  EXPECT_EQ(scorer.calls[2], 1);
  // Two points past the last that holds.
  EXPECT_EQ(report->path.size(), static_cast<size_t>(report->chosen) + 3);
  for (size_t i = 1; i < report->test.size(); ++i) {
    EXPECT_GE(report->test[i].quality.loss, report->test[0].quality.loss);
  }
}

TEST(Prune, KeepsWhatItIsAskedTo) {
  PruneTask task = MakeTask();
  task.target.keep = 0.25;
  LabelScorer scorer;
  const absl::StatusOr<PruneReport> report = Prune(task, &scorer);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(std::count(report->gone.begin(), report->gone.end(), true), 6);
  EXPECT_EQ(Judge(report->test.front().quality, 0.01), Verdict::kFails);
}

// 60 % of 8 units are 4.8: a fifth one would be over what was asked for.
TEST(Prune, KeepsNoMoreThanItIsAskedTo) {
  PruneTask task = MakeTask();
  task.target.keep = 0.6;
  LabelScorer scorer;
  const absl::StatusOr<PruneReport> report = Prune(task, &scorer);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(std::count(report->gone.begin(), report->gone.end(), true), 4);
  EXPECT_EQ(report->test.front().kv_bytes, 400);
}

// 20 of 40 bytes have to go: five groups of 4, which are the cheapest for their
// size, do it, and none of those of 1 goes as well.
TEST(Prune, StopsAtItsTargetWhereUnitsCostDifferently) {
  PruneTask task;
  task.layers = UniformModel(4, 4, 1);
  std::vector<double> unit_kl;
  for (PrunableLayer& layer : task.layers) {
    for (PrunableGroup& group : layer.groups) {
      group.bytes_per_token = group.kv_head < 2 ? 4 : 1;
      unit_kl.push_back(group.kv_head < 2 ? 0.01 : 0.1);
    }
  }
  task.target.keep = 0.5;
  SyntheticScorer scorer(unit_kl, {}, 4);
  const absl::StatusOr<PruneReport> report = Prune(task, &scorer);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(CostOf(report->units, report->gone), 20);
  EXPECT_EQ(report->test.front().kv_bytes, 20);
}

TEST(Prune, LeavesTheTestSplitAloneWhenNothingHolds) {
  PruneTask task = MakeTask();
  task.target.max_loss = 1e-5;  // no 1,000 examples can show that
  LabelScorer scorer;
  const absl::StatusOr<PruneReport> report = Prune(task, &scorer);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->chosen, -1);
  EXPECT_EQ(scorer.calls[2], 0);
  EXPECT_EQ(std::count(report->gone.begin(), report->gone.end(), true), 0);
}

TEST(Prune, RefusesATargetThatKeepsEverything) {
  PruneTask task = MakeTask();
  task.target.keep = 1.0;
  LabelScorer scorer;
  EXPECT_THAT(std::string(Prune(task, &scorer).status().message()),
              HasSubstr("keeps everything"));
}

TEST(Prune, PutsTheCeilingOnEveryRow) {
  PruneTask task = MakeTask();
  task.target.keep = 0.5;
  // Without MLP and output, half the heads are half the work.
  task.widths = ModelWidths{.hidden = 64, .head_dim = 16, .ffn = {0, 0}};
  LabelScorer scorer;
  const absl::StatusOr<PruneReport> report = Prune(task, &scorer);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_NEAR(report->test.front().speedup_ceiling, 2, 1e-9);
  for (const ReportRow& row : report->path) EXPECT_GE(row.speedup_ceiling, 1);
}

TEST(PlannedForwards, IsWhatARunOfScoresThatAddUpTakes) {
  PruneTask task = MakeTask();
  task.target.keep = 0.5;
  LabelScorer scorer;
  ASSERT_TRUE(Prune(task, &scorer).ok());
  const int64_t planned = PlannedForwards(task, {1'000, 1'000, 1'000});
  const auto taken = static_cast<int64_t>(scorer.arithmetic.scored) * 1'000;
  EXPECT_NEAR(static_cast<double>(planned), static_cast<double>(taken),
              0.3 * static_cast<double>(taken));
}

}  // namespace
}  // namespace headcount
