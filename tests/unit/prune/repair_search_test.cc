// Which refits stay, with answers that are arithmetic.
#include "prune/repair_search.h"

#include <map>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prune/repair_report.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr size_t kSelected = 40;
constexpr size_t kTested = 30;

// The mask alone is 1 nat away; each layer's refit adds its own, which may be
// less than 0, and `elsewhere` to examples past the first ten of select.
class ArithmeticTrial final : public RepairTrial {
 public:
  absl::StatusOr<Answers> Try(Split split, const std::vector<int64_t>& examples,
                              const std::vector<LayerRepair>& repair) override {
    asked[static_cast<size_t>(split)] += static_cast<int64_t>(examples.size());
    std::vector<int>& layers = tried.emplace_back();
    double kl = 1;
    for (const LayerRepair& each : repair) {
      layers.push_back(each.layer);
      kl += by_layer.at(each.layer);
    }
    Answers answers;
    for (const int64_t example : examples) {
      drawn.insert(example);
      Outcome outcome;
      outcome.kl = kl + (example >= 10 && !repair.empty() ? elsewhere : 0);
      outcome.logprob = -outcome.kl;
      outcome.right = outcome.kl < 1;
      outcome.label = outcome.right ? "spam" : "ham";
      answers.repaired.push_back(outcome);
      answers.dense.push_back({.right = true, .label = "spam"});
    }
    return answers;
  }

  std::map<int, double> by_layer = {{0, -0.2}, {2, 0.1}, {3, -0.1}};
  double elsewhere = 0;
  std::array<int64_t, kSplits> asked = {};
  std::vector<std::vector<int>> tried;
  std::set<int64_t> drawn;
};

RepairTask MakeRepairTask() {
  RepairTask task{.metric = Metric::kAccuracy};
  for (const int layer : {0, 2, 3}) {
    task.candidates.push_back(
        {.layer = layer,
         .projection = {.hidden = 1, .weight = {1}, .bias = {2}}});
  }
  task.truth[1].assign(kSelected, "spam");
  task.truth[2].assign(kTested, "spam");
  return task;
}

TEST(SearchRepair, KeepsTheLayersThatHelp) {
  ArithmeticTrial trial;
  const auto result = SearchRepair(MakeRepairTask(), &trial);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->accepted.size(), 2u);
  EXPECT_EQ(result->accepted[0].layer, 0);
  EXPECT_EQ(result->accepted[1].layer, 3);
  // Each beside those accepted before; then both splits as wholes.
  EXPECT_THAT(trial.tried,
              ElementsAre(IsEmpty(), ElementsAre(0), ElementsAre(0, 2),
                          ElementsAre(0, 3), IsEmpty(), ElementsAre(0, 3),
                          IsEmpty(), ElementsAre(0, 3)));
  const RepairReport& report = result->report;
  EXPECT_TRUE(report.written);
  EXPECT_NEAR(report.steps[1].without, 0.8, 1e-12);
  EXPECT_NEAR(report.steps[1].with, 0.9, 1e-12);
  EXPECT_FALSE(report.steps[1].accepted);
  const Comparison& test = OnSplit(report.gain, Split::kTest);
  EXPECT_EQ(test.n, 30);
  EXPECT_NEAR(test.kl_mean, -0.3, 1e-12);
  EXPECT_NEAR(test.loss, -1, 1e-12) << "all answers were gained";
  EXPECT_NEAR(OnSplit(report.mask_alone, Split::kTest).loss, 1, 1e-12);
  EXPECT_NEAR(OnSplit(report.repaired, Split::kTest).loss, 0, 1e-12);
  EXPECT_THAT(CountRepaired(report), HasSubstr("2 of 3 layers (0, 3)"));
}

TEST(SearchRepair, TakesTheBestOfALayer) {
  // Three refits of one layer; what each comes to is its bias.
  class ByBias final : public RepairTrial {
   public:
    absl::StatusOr<Answers> Try(
        Split, const std::vector<int64_t>& examples,
        const std::vector<LayerRepair>& repair) override {
      EXPECT_LE(repair.size(), 1u) << "one in the place of the other";
      Answers answers;
      answers.dense.resize(examples.size());
      Outcome outcome;
      outcome.kl =
          repair.empty() ? 1 : double{repair.front().projection.bias.front()};
      answers.repaired.assign(examples.size(), outcome);
      return answers;
    }
  };
  RepairTask task = MakeRepairTask();
  task.candidates.clear();
  for (const float bias : {0.5f, 0.25f, 0.375f}) {
    task.candidates.push_back(
        {.layer = 4, .projection = {.hidden = 1, .bias = {bias}}});
  }
  ByBias trial;
  const auto result = SearchRepair(task, &trial);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->accepted.size(), 1u);
  EXPECT_THAT(result->accepted[0].projection.bias, ElementsAre(0.25f));
  std::vector<bool> accepted;
  for (const RepairStep& step : result->report.steps) {
    accepted.push_back(step.accepted);
  }
  EXPECT_THAT(accepted, ElementsAre(false, true, false));
  EXPECT_THAT(CountRepaired(result->report), HasSubstr("1 of 1 layers (4)"));
  EXPECT_THAT(RenderRepair(result->report),
              HasSubstr("<td>gave way to a better one</td>"));
}

TEST(SearchRepair, WithoutALayerThatHelpsReadsNoTest) {
  ArithmeticTrial trial;
  trial.by_layer = {{0, 0.0}, {2, 0.1}, {3, 1.0}};
  const auto result = SearchRepair(MakeRepairTask(), &trial);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->report.written);
  EXPECT_THAT(result->accepted, IsEmpty());
  EXPECT_EQ(trial.asked[2], 0);
  EXPECT_THAT(CountRepaired(result->report),
              HasSubstr("No repair was written"));
}

TEST(SearchRepair, DropsWhatHelpedOnTheTriedExamplesOnly) {
  ArithmeticTrial trial;
  RepairTask task = MakeRepairTask();
  task.most_examples = 10;
  // Whatever ten are drawn, the rest of the split is as far away as this says.
  trial.elsewhere = 0;
  auto result = SearchRepair(task, &trial);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->report.written);
  EXPECT_EQ(result->report.tried_on, 10);

  // The same draw, but everything else gets worse.
  class Elsewhere final : public RepairTrial {
   public:
    absl::StatusOr<Answers> Try(
        Split, const std::vector<int64_t>& examples,
        const std::vector<LayerRepair>& repair) override {
      const bool few = examples.size() == 10;
      Answers answers;
      answers.dense.resize(examples.size());
      Outcome outcome;
      outcome.kl = repair.empty() ? 1 : few ? 0.5 : 2;
      answers.repaired.assign(examples.size(), outcome);
      return answers;
    }
  };
  Elsewhere elsewhere;
  result = SearchRepair(task, &elsewhere);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->report.written);
  EXPECT_THAT(result->accepted, IsEmpty());
  EXPECT_EQ(OnSplit(result->report.gain, Split::kTest).n, 0);
  EXPECT_THAT(CountRepaired(result->report),
              HasSubstr("did not on the whole select split"));
}

TEST(SearchRepair, TriesOnTheSameExamplesEachTime) {
  std::set<int64_t> first;
  for (const uint64_t seed : {1, 1, 2}) {
    ArithmeticTrial trial;
    trial.by_layer = {{0, 0.1}, {2, 0.1}, {3, 0.1}};
    RepairTask task = MakeRepairTask();
    task.most_examples = 12;
    task.seed = seed;
    ASSERT_TRUE(SearchRepair(task, &trial).ok());
    EXPECT_EQ(trial.drawn.size(), 12u);
    EXPECT_EQ(trial.asked[1], 12 * 4);
    if (first.empty()) first = trial.drawn;
    EXPECT_EQ(trial.drawn == first, seed == 1);
  }
}

TEST(SearchRepair, JudgesTargetsByTheirLikelihood) {
  ArithmeticTrial trial;
  RepairTask task = MakeRepairTask();
  task.metric = Metric::kLogprob;
  const auto result = SearchRepair(task, &trial);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->report.written);
  const Comparison& test = OnSplit(result->report.gain, Split::kTest);
  EXPECT_NEAR(test.loss, -0.3, 1e-12);
  EXPECT_FALSE(test.has_kl);
}

TEST(PlannedAnswers, CoverWhatIsAsked) {
  ArithmeticTrial trial;
  const RepairTask task = MakeRepairTask();
  const int64_t planned = PlannedAnswers(task);
  ASSERT_TRUE(SearchRepair(task, &trial).ok());
  // Dense answers once for each example.
  EXPECT_EQ(planned, trial.asked[1] + trial.asked[2] +
                         static_cast<int64_t>(kSelected + kTested));
}

TEST(RenderRepair, SaysWhatWasTriedAndGained) {
  ArithmeticTrial trial;
  const auto result = SearchRepair(MakeRepairTask(), &trial);
  ASSERT_TRUE(result.ok()) << result.status();
  const std::string page = RenderRepair(result->report);
  EXPECT_THAT(page, HasSubstr("<td>left as it was</td>"));
  EXPECT_THAT(page, HasSubstr("<td>-100.00 points</td>"));
  EXPECT_THAT(page, HasSubstr("<td>-0.3000 (-0.3000 to -0.3000)</td>"));
  RepairReport none = result->report;
  none.written = false;
  EXPECT_THAT(RenderRepair(none), Not(HasSubstr("<td>test</td>")));
}

}  // namespace
}  // namespace headcount
