// Refit output projections against what least squares has to satisfy, and
// against solutions worked out by hand.
#include "prune/output_refit.h"

#include <cmath>
#include <random>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::FloatNear;

using Rows = std::vector<std::vector<double>>;  // [token][column]

HeadMoments MomentsOf(const Rows& rows) {
  const size_t width = rows.front().size();
  HeadMoments moments{.tokens = static_cast<int64_t>(rows.size()),
                      .mean = std::vector<double>(width),
                      .second = std::vector<double>(width * width)};
  const auto count = static_cast<double>(rows.size());
  for (const std::vector<double>& o : rows) {
    for (size_t i = 0; i < width; ++i) {
      moments.mean[i] += o[i] / count;
      for (size_t j = 0; j < width; ++j) {
        moments.second[i * width + j] += o[i] * o[j] / count;
      }
    }
  }
  return moments;
}

// Columns that depend on each other and are not around 0.
Rows RandomRows(size_t count, size_t width) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  Rows rows(count, std::vector<double>(width));
  for (std::vector<double>& o : rows) {
    double common = normal(random);
    for (size_t i = 0; i < width; ++i) {
      common = 0.8 * common + normal(random);
      o[i] = common + 0.3 * static_cast<double>(i);
    }
  }
  return rows;
}

OutputProjection RandomProjection(size_t hidden, size_t width, bool bias) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  OutputProjection projection{.hidden = static_cast<int64_t>(hidden)};
  for (size_t i = 0; i < hidden * width; ++i) {
    projection.weight.push_back(normal(random));
  }
  for (size_t i = 0; bias && i < hidden; ++i) {
    projection.bias.push_back(normal(random));
  }
  return projection;
}

std::vector<double> Kept(const std::vector<double>& o,
                         const std::vector<bool>& kept) {
  std::vector<double> result;
  for (size_t i = 0; i < o.size(); ++i) {
    if (kept[i]) result.push_back(o[i]);
  }
  return result;
}

double Output(const OutputProjection& projection, size_t row,
              const std::vector<double>& o) {
  double y =
      projection.bias.empty() ? 0 : static_cast<double>(projection.bias[row]);
  for (size_t i = 0; i < o.size(); ++i) {
    y += double{projection.weight[row * o.size() + i]} * o[i];
  }
  return y;
}

// The objective of the header, token by token.
double Objective(const OutputProjection& dense, const OutputProjection& refit,
                 const Rows& rows, const std::vector<bool>& kept) {
  double error = 0;
  for (const std::vector<double>& o : rows) {
    for (size_t row = 0; row < static_cast<size_t>(dense.hidden); ++row) {
      const double miss =
          Output(dense, row, o) - Output(refit, row, Kept(o, kept));
      error += miss * miss / static_cast<double>(rows.size());
    }
  }
  const HeadMoments moments = MomentsOf(rows);
  const size_t width = kept.size();
  double variance = 0;
  double stay = 0;
  double pull = 0;
  for (size_t i = 0; i < width; ++i) {
    if (!kept[i]) continue;
    variance +=
        moments.second[i * width + i] - moments.mean[i] * moments.mean[i];
    for (size_t row = 0; row < static_cast<size_t>(dense.hidden); ++row) {
      const auto columns =
          refit.weight.size() / static_cast<size_t>(dense.hidden);
      const double change =
          double{refit.weight[row * columns + static_cast<size_t>(stay)]} -
          double{dense.weight[row * width + i]};
      pull += change * change;
    }
    ++stay;
  }
  return error + 0.01 * variance / stay * pull;
}

TEST(RefitOutput, IsTheLeastOfItsObjective) {
  const Rows rows = RandomRows(400, 8);
  const std::vector<bool> kept = {true,  false, true, true,
                                  false, true,  true, false};
  for (const bool bias : {false, true}) {
    const OutputProjection dense = RandomProjection(3, 8, bias);
    const auto refit = RefitOutput(dense, MomentsOf(rows), kept);
    ASSERT_TRUE(refit.ok()) << refit.status();
    ASSERT_EQ(refit->weight.size(), 3u * 5u);
    ASSERT_EQ(refit->bias.size(), 3u);
    const double least = Objective(dense, *refit, rows, kept);
    // A quadratic is least where every small step goes up.
    for (const float step : {-0.01f, 0.01f}) {
      for (size_t i = 0; i < refit->weight.size(); ++i) {
        OutputProjection moved = *refit;
        moved.weight[i] += step;
        EXPECT_GT(Objective(dense, moved, rows, kept), least) << i;
      }
      for (size_t i = 0; i < refit->bias.size(); ++i) {
        OutputProjection moved = *refit;
        moved.bias[i] += step;
        EXPECT_GT(Objective(dense, moved, rows, kept), least) << i;
      }
    }
    // The central differences of its derivative are 0.
    const float h = 0.25f;
    for (size_t i = 0; i < refit->weight.size(); ++i) {
      OutputProjection up = *refit;
      OutputProjection down = *refit;
      up.weight[i] += h;
      down.weight[i] -= h;
      EXPECT_NEAR((Objective(dense, up, rows, kept) -
                   Objective(dense, down, rows, kept)) /
                      (2 * double{h}),
                  0, 1e-4 * least);
    }
  }
}

TEST(RefitOutput, OfTwoColumnsIsWhatPaperSays) {
  // o = (x, 2 x + 1), x of variance 1 and mean 3. y = 5 x + 7 (2 x + 1), and
  // the first column stays: lambda 0.01, D = 7 cov / 1.01 with cov = 2.
  const Rows rows = {{2, 5}, {4, 9}};
  const OutputProjection dense{.hidden = 1, .weight = {5, 7}, .bias = {}};
  const auto refit = RefitOutput(dense, MomentsOf(rows), {true, false});
  ASSERT_TRUE(refit.ok()) << refit.status();
  const double weight = 5 + 14 / 1.01;
  EXPECT_THAT(refit->weight,
              ElementsAre(FloatNear(static_cast<float>(weight), 1e-5f)));
  // E y - W E x.
  EXPECT_THAT(refit->bias,
              ElementsAre(FloatNear(
                  static_cast<float>(5 * 3 + 7 * 7 - weight * 3), 1e-5f)));
}

TEST(RefitOutput, KeepsWhatLosesNothing) {
  const OutputProjection dense = RandomProjection(3, 4, true);
  const auto refit = RefitOutput(dense, MomentsOf(RandomRows(50, 4)),
                                 {true, true, true, true});
  ASSERT_TRUE(refit.ok()) << refit.status();
  EXPECT_EQ(refit->weight, dense.weight);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(refit->bias[i], dense.bias[i], 1e-6);
  }
}

TEST(RefitOutput, OfNoHeadsIsTheMeanOutput) {
  const Rows rows = RandomRows(50, 4);
  const OutputProjection dense = RandomProjection(3, 4, true);
  const auto refit =
      RefitOutput(dense, MomentsOf(rows), {false, false, false, false});
  ASSERT_TRUE(refit.ok()) << refit.status();
  EXPECT_TRUE(refit->weight.empty());
  for (size_t row = 0; row < 3; ++row) {
    double mean = 0;
    for (const std::vector<double>& o : rows) {
      mean += Output(dense, row, o) / static_cast<double>(rows.size());
    }
    EXPECT_NEAR(refit->bias[row], mean, 1e-5);
  }
}

TEST(RefitOutput, ATwinTakesOverWhatItsTwinDid) {
  Rows rows = RandomRows(200, 4);
  for (std::vector<double>& o : rows) o[3] = o[1];
  const OutputProjection dense = RandomProjection(2, 4, false);
  const std::vector<bool> kept = {true, true, true, false};
  const auto refit = RefitOutput(dense, MomentsOf(rows), kept);
  ASSERT_TRUE(refit.ok()) << refit.status();
  double error = 0;
  double output = 0;
  for (const std::vector<double>& o : rows) {
    for (size_t row = 0; row < 2; ++row) {
      const double y = Output(dense, row, o);
      const double miss = y - Output(*refit, row, Kept(o, kept));
      error += miss * miss;
      output += y * y;
    }
  }
  // But for the pull towards the old weights.
  EXPECT_LT(error, 1e-3 * output);
}

TEST(RefitOutput, OfHeadsThatNeverChangeMovesTheBiasOnly) {
  const Rows rows(5, {1, 2, 3});
  const OutputProjection dense{.hidden = 1, .weight = {1, 10, 100}, .bias = {}};
  const auto refit = RefitOutput(dense, MomentsOf(rows), {true, true, false});
  ASSERT_TRUE(refit.ok()) << refit.status();
  EXPECT_THAT(refit->weight, ElementsAre(1, 10));
  EXPECT_THAT(refit->bias, ElementsAre(300));
}

TEST(RefitOutput, RefusesStatisticsOfNothing) {
  const OutputProjection dense = RandomProjection(2, 2, false);
  HeadMoments moments = MomentsOf({{0, 0}});
  moments.tokens = 0;
  EXPECT_TRUE(absl::IsFailedPrecondition(
      RefitOutput(dense, moments, {true, false}).status()));
  moments.tokens = 1;
  moments.second[1] = NAN;
  EXPECT_TRUE(absl::IsInvalidArgument(
      RefitOutput(dense, moments, {true, false}).status()));
}

TEST(MergeMoments, IsAsIfCountedTogether) {
  const Rows rows = RandomRows(30, 3);
  HeadMoments merged;
  Merge(MomentsOf({rows.begin(), rows.begin() + 7}), &merged);
  Merge(HeadMoments{}, &merged);
  Merge(MomentsOf({rows.begin() + 7, rows.end()}), &merged);
  const HeadMoments all = MomentsOf(rows);
  EXPECT_EQ(merged.tokens, 30);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_NEAR(merged.mean[i], all.mean[i], 1e-12);
  for (size_t i = 0; i < 9; ++i) {
    EXPECT_NEAR(merged.second[i], all.second[i], 1e-12);
  }
}

}  // namespace
}  // namespace headcount
