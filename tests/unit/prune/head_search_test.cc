#include "prune/head_search.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prune/controls.h"
#include "synthetic_scorer.h"

namespace headcount {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

// The smallest KL of any mask of the same cost, by trying all of them.
double BestKl(const SyntheticScorer& scorer, size_t units, int64_t count) {
  double best = INFINITY;
  for (uint32_t bits = 0; bits < (1u << units); ++bits) {
    UnitSet gone(units);
    for (size_t i = 0; i < units; ++i) gone[i] = (bits >> i & 1) != 0;
    if (std::count(gone.begin(), gone.end(), true) == count) {
      best = std::min(best, scorer.Kl(gone));
    }
  }
  return best;
}

// 3 layers of 4 groups; units 2 and 9 each look free, but not both.
const std::vector<double> kUnitKl = {0.5,  0.02, 0.001, 0.3,   0.04, 0.6,
                                     0.01, 0.2,  0.05,  0.001, 0.7,  0.03};
const std::vector<SyntheticScorer::Pair> kRedundant = {{2, 9, 5.0}};

class HeadSearchTest : public testing::Test {
 protected:
  const PrunableModel model_ = UniformModel(3, 4, 3);
  const PruneUnits units_ = MakeUnits(model_, UnitKind::kGroup);
};

TEST_F(HeadSearchTest, FindsTheBestMaskWhereScoresAddUp) {
  SyntheticScorer scorer(kUnitKl, {}, 8);
  HeadSearch search(units_, &scorer);
  ASSERT_TRUE(search.Rank().ok());
  UnitSet before(12, false);
  for (int tenths = 1; tenths <= 9; ++tenths) {
    const absl::StatusOr<PathPoint> point = search.Extend(tenths / 10.0);
    ASSERT_TRUE(point.ok());
    const auto count = std::count(point->gone.begin(), point->gone.end(), true);
    EXPECT_EQ(count, 12 * tenths / 10);
    EXPECT_NEAR(point->kl, BestKl(scorer, 12, count), 1e-12) << tenths;
    EXPECT_EQ(Union(before, point->gone), point->gone) << "not nested";
    before = point->gone;
  }
}

TEST_F(HeadSearchTest, KeepsOneOfTwoThatStandInForEachOther) {
  SyntheticScorer scorer(kUnitKl, kRedundant, 8);
  HeadSearch search(units_, &scorer);
  ASSERT_TRUE(search.Rank().ok());
  for (const double share : {0.1, 0.2, 0.3, 0.4, 0.5, 0.75}) {
    const absl::StatusOr<PathPoint> point = search.Extend(share);
    ASSERT_TRUE(point.ok());
    const auto count = std::count(point->gone.begin(), point->gone.end(), true);
    EXPECT_FALSE(point->gone[2] && point->gone[9]) << share;
    EXPECT_NEAR(point->kl, BestKl(scorer, 12, count), 1e-12) << share;
  }
  EXPECT_GT(search.rescored(), 1);
}

TEST_F(HeadSearchTest, SplitsAStepThatHoldsBothOfAPair) {
  SyntheticScorer scorer(kUnitKl, kRedundant, 8);
  HeadSearch search(units_, &scorer);
  ASSERT_TRUE(search.Rank().ok());
  const absl::StatusOr<PathPoint> point = search.Extend(0.4);
  ASSERT_TRUE(point.ok());
  EXPECT_FALSE(point->gone[2] && point->gone[9]);
  EXPECT_NEAR(point->kl, BestKl(scorer, 12, 4), 1e-12);
}

// Taken together, the units of a layer can be cheaper than their sum.
TEST_F(HeadSearchTest, TakesAWholeLayerWhereThatIsCheaper) {
  std::vector<double> kl(12, 0.1);
  for (const size_t i : {4, 5, 6, 7}) kl[i] = 0.2;
  SyntheticScorer scorer(kl, {{4, 5, -0.39}, {6, 7, -0.39}}, 8);
  HeadSearch search(units_, &scorer);
  ASSERT_TRUE(search.Rank().ok());
  EXPECT_NEAR(search.layer_kl()[1], 0.02, 1e-12);
  EXPECT_NEAR(search.layer_kl()[0], 0.4, 1e-12);
  const absl::StatusOr<PathPoint> point = search.Extend(0.34);
  ASSERT_TRUE(point.ok());
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(point->gone[i], i / 4 == 1) << i;
}

TEST_F(HeadSearchTest, WeighsWhatAUnitSaves) {
  PrunableModel model = UniformModel(1, 3, 1);
  model[0].groups[2].bytes_per_token = 400;
  const PruneUnits units = MakeUnits(model, UnitKind::kGroup);
  SyntheticScorer scorer({0.1, 0.15, 0.2}, {}, 4);
  HeadSearch search(units, &scorer);
  ASSERT_TRUE(search.Rank().ok());
  const absl::StatusOr<PathPoint> point = search.Extend(0.7);
  ASSERT_TRUE(point.ok());
  EXPECT_THAT(point->gone, ElementsAre(false, false, true));
}

TEST_F(HeadSearchTest, CostsOneSettingForEachUnitAndLayer) {
  SyntheticScorer scorer(kUnitKl, {}, 8);
  HeadSearch search(units_, &scorer);
  ASSERT_TRUE(search.Rank().ok());
  EXPECT_EQ(scorer.calls, 1);
  EXPECT_EQ(scorer.scored, 1u + 12 + 3);
}

// 15 layers of 4 groups, in an order that has nothing to do with layers; with
// the first six as well as gone, each of the next six costs 5 nats more.
class LargeSearchTest : public testing::Test {
 protected:
  static constexpr size_t kUnits = 60;
  // The unit at place `rank` of the order.
  static size_t At(size_t rank) { return rank * 37 % kUnits; }

  LargeSearchTest() {
    for (size_t rank = 0; rank < kUnits; ++rank) {
      unit_kl_[At(rank)] = 0.01 * static_cast<double>(rank + 1);
    }
    for (size_t rank = 0; rank < 6; ++rank) {
      pairs_.push_back({At(rank), At(rank + 6), 5.0});
    }
  }
  // What is cheapest, one of each pair left.
  static UnitSet Expected(size_t count) {
    UnitSet gone(kUnits, false);
    for (size_t rank = 0; rank < count + 6; ++rank) {
      gone[At(rank)] = rank < 6 || rank >= 12;
    }
    return gone;
  }

  const PrunableModel model_ = UniformModel(15, 4, 1);
  const PruneUnits units_ = MakeUnits(model_, UnitKind::kGroup);
  std::vector<double> unit_kl_ = std::vector<double>(kUnits);
  std::vector<SyntheticScorer::Pair> pairs_;
};

TEST_F(LargeSearchTest, ScoresOnlyWhatCouldBeNext) {
  SyntheticScorer scorer(unit_kl_, pairs_, 2);
  HeadSearch search(units_, &scorer);
  ASSERT_TRUE(search.Rank().ok());
  EXPECT_EQ(scorer.scored, 1 + kUnits + 15);
  for (const size_t count : {6, 12, 24, 36, 42}) {
    const absl::StatusOr<PathPoint> point =
        search.Extend(static_cast<double>(count) / kUnits);
    ASSERT_TRUE(point.ok());
    EXPECT_EQ(point->gone, Expected(count)) << count;
  }
  ASSERT_GE(search.rescored(), 3);
  // Each time 32 of what is left, and what is gone, and some joint scores.
  const auto rescored = static_cast<size_t>(search.rescored());
  EXPECT_LE(scorer.scored, 1 + kUnits + 15 + rescored * (33 + 6));
}

// The cheapest by old scores have all become dear.
TEST_F(LargeSearchTest, GoesOnScoringUntilTheCheapestIsScored) {
  std::vector<SyntheticScorer::Pair> pairs;
  for (size_t rank = 1; rank < 41; ++rank) {
    pairs.push_back({At(0), At(rank), 5.0});
  }
  SyntheticScorer scorer(unit_kl_, pairs, 2);
  HeadSearch search(units_, &scorer);
  ASSERT_TRUE(search.Rank().ok());
  const absl::StatusOr<PathPoint> point = search.Extend(6.0 / kUnits);
  ASSERT_TRUE(point.ok());
  UnitSet expected(kUnits, false);
  for (const size_t rank : {0, 41, 42, 43, 44, 45}) expected[At(rank)] = true;
  EXPECT_EQ(point->gone, expected);
}

TEST_F(HeadSearchTest, StabilityIsOneWhenEveryExampleAgrees) {
  SyntheticScorer scorer(kUnitKl, {}, 8);
  HeadSearch search(units_, &scorer);
  ASSERT_TRUE(search.Rank().ok());
  EXPECT_EQ(MaskStability(units_, search.example_kl(), 0.5, 1), 1);
}

TEST_F(HeadSearchTest, StabilityFallsWhenExamplesDisagree) {
  std::vector<std::vector<double>> kl(12, std::vector<double>(4, 0.1));
  for (size_t i = 0; i < 12; ++i) kl[i][i % 4] = 10;
  EXPECT_LT(MaskStability(units_, kl, 0.5, 1), 0.9);
}

class ControlsTest : public HeadSearchTest {
 protected:
  // Two groups of layer 0, all four of layer 1.
  const UnitSet gone_ = {true, true, false, false, true,  true,
                         true, true, false, false, false, false};
};

TEST_F(ControlsTest, RandomTakesAsManyOfEachLayer) {
  const UnitSet random = RandomLike(units_, gone_, 5);
  EXPECT_EQ(std::count(random.begin(), random.begin() + 4, true), 2);
  EXPECT_EQ(std::count(random.begin() + 4, random.begin() + 8, true), 4);
  EXPECT_EQ(std::count(random.begin() + 8, random.end(), true), 0);
  EXPECT_EQ(random, RandomLike(units_, gone_, 5));
}

TEST_F(ControlsTest, UniformTakesTheCheapestOfEveryLayer) {
  const UnitSet uniform = UniformPerLayer(units_, kUnitKl, gone_);
  // Cheapest two of each: 2, 1; 6, 4; 9, 11.
  EXPECT_THAT(uniform, ElementsAre(false, true, true, false, true, false, true,
                                   false, false, true, false, true));
}

TEST_F(ControlsTest, UniformGivesTheRestToTheFirstLayers) {
  UnitSet gone(12, false);
  gone[0] = gone[1] = gone[2] = gone[3] = true;
  const UnitSet uniform = UniformPerLayer(units_, kUnitKl, gone);
  EXPECT_EQ(std::count(uniform.begin(), uniform.begin() + 4, true), 2);
  EXPECT_EQ(std::count(uniform.begin() + 4, uniform.begin() + 8, true), 1);
  EXPECT_EQ(std::count(uniform.begin() + 8, uniform.end(), true), 1);
}

TEST_F(ControlsTest, WholeLayersFitTheCost) {
  const UnitSet layers = WholeLayers(units_, {0.5, 0.9, 0.2}, gone_);
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(layers[i], i / 4 == 2) << i;
  UnitSet few(12, false);
  few[0] = true;
  EXPECT_THAT(WholeLayers(units_, {0.5, 0.9, 0.2}, few), Each(false));
}

}  // namespace
}  // namespace headcount
