#include "prune/comparison.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prune/cost_ceiling.h"
#include "synthetic_scorer.h"

namespace headcount {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// n examples, alternately of two classes; the pruned model gets the first
// `lost` wrong, the dense one the last `gained`.
struct Labelled {
  std::vector<Outcome> dense, pruned;
  std::vector<std::string> truth;
};
Labelled MakeLabelled(size_t n, size_t lost, size_t gained) {
  Labelled result;
  for (size_t i = 0; i < n; ++i) {
    const std::string truth = i % 2 == 0 ? "spam" : "ham";
    const std::string other = i % 2 == 0 ? "ham" : "spam";
    const bool dense = i < n - gained;
    const bool pruned = i >= lost;
    result.truth.push_back(truth);
    result.dense.push_back({.right = dense, .label = dense ? truth : other});
    result.pruned.push_back({.kl = pruned == dense ? 0.01 : 0.4,
                             .right = pruned,
                             .label = pruned ? truth : other});
  }
  return result;
}
Comparison CompareLabelled(size_t n, size_t lost, size_t gained) {
  const Labelled labelled = MakeLabelled(n, lost, gained);
  return Compare(labelled.dense, labelled.pruned, labelled.truth,
                 Metric::kAccuracy, 1);
}

TEST(Compare, CountsPairs) {
  const Comparison c = CompareLabelled(200, 6, 2);
  EXPECT_EQ(c.n, 200);
  EXPECT_EQ(c.counts.lost, 6);
  EXPECT_EQ(c.counts.gained, 2);
  EXPECT_DOUBLE_EQ(c.dense, 198.0 / 200);
  EXPECT_DOUBLE_EQ(c.pruned, 194.0 / 200);
  EXPECT_NEAR(c.loss, 0.02, 1e-12);
  EXPECT_DOUBLE_EQ(c.agreement, 192.0 / 200);
  EXPECT_NEAR(c.mcnemar, 2 * (1 + 8 + 28) / 256.0, 1e-12);
  EXPECT_NEAR(c.kl_mean, (192 * 0.01 + 8 * 0.4) / 200, 1e-12);
  EXPECT_EQ(c.kl_p95, 0.01);
  EXPECT_LE(c.loss95.low, 0.02);
  EXPECT_GE(c.loss95.high, 0.02);
}

TEST(Compare, CountsLabelsThatAgreeWithoutATruth) {
  const Labelled labelled = MakeLabelled(200, 6, 2);
  const Comparison c =
      Compare(labelled.dense, labelled.pruned, {}, Metric::kKl, 1);
  EXPECT_TRUE(c.has_agreement);
  EXPECT_DOUBLE_EQ(c.agreement, 192.0 / 200);
  const std::vector<Outcome> unlabelled(200);
  EXPECT_FALSE(
      Compare(unlabelled, unlabelled, {}, Metric::kKl, 1).has_agreement);
}

TEST(Compare, FindsTheClassThatSuffers) {
  Labelled labelled = MakeLabelled(100, 0, 0);
  for (const size_t i : {1, 3, 5}) labelled.pruned[i].right = false;
  const Comparison c = Compare(labelled.dense, labelled.pruned, labelled.truth,
                               Metric::kAccuracy, 1);
  EXPECT_EQ(c.worst.label, "ham");
  EXPECT_EQ(c.worst.n, 50);
  EXPECT_DOUBLE_EQ(c.worst.dense, 1);
  EXPECT_DOUBLE_EQ(c.worst.pruned, 47.0 / 50);
}

TEST(Compare, OfTargetTextsIsNatsAToken) {
  std::vector<Outcome> dense(4);
  std::vector<Outcome> pruned(4);
  for (size_t i = 0; i < 4; ++i) {
    dense[i].logprob = -1;
    pruned[i].logprob = -1.1 - 0.1 * static_cast<double>(i);
  }
  const Comparison c = Compare(dense, pruned, {}, Metric::kLogprob, 1);
  EXPECT_NEAR(c.loss, 0.25, 1e-12);
  EXPECT_NEAR(c.dense, -1, 1e-12);
  // Deviation 0.1291 over sqrt(4), by hand.
  EXPECT_NEAR(c.loss_bounds.high, 0.25 + 1.645 * 0.0645497, 1e-6);
}

TEST(Judge, NeedsData) {
  // 2.706 / (n + 2.706) <= 0.01 from 268 on.
  EXPECT_EQ(Judge(CompareLabelled(267, 0, 0), 0.01), Verdict::kNotEnoughData);
  EXPECT_EQ(Judge(CompareLabelled(268, 0, 0), 0.01), Verdict::kHolds);
  EXPECT_EQ(Judge(CompareLabelled(400, 60, 0), 0.01), Verdict::kFails);
}

TEST(Claim, SaysWhenThereIsNotEnoughData) {
  const std::string claim = Claim(CompareLabelled(100, 1, 1), 0.01);
  EXPECT_THAT(claim, HasSubstr("not enough data to claim this"));
  // 2 of 100 answers differ, so 542 as in the table.
  EXPECT_THAT(claim, HasSubstr("about 542 examples"));
  EXPECT_THAT(Claim(CompareLabelled(2'000, 1, 1), 0.01),
              Not(HasSubstr("not enough data")));
  EXPECT_THAT(Claim(CompareLabelled(100, 2, 0), 0.01),
              HasSubstr("over the limit already"));
  EXPECT_THAT(Claim(CompareLabelled(400, 60, 0), 0.01),
              HasSubstr("more than 1.00 points"));
}

// 1.1 / 100 is a bit more than 11 / 1,000: no room that examples could fill.
TEST(Claim, TakesALossAtTheLimitForOneOverIt) {
  const Comparison c = CompareLabelled(1'000, 11, 0);
  const double margin = 1.1 / 100;
  ASSERT_LT(c.loss, margin);
  ASSERT_EQ(Judge(c, margin), Verdict::kNotEnoughData);
  EXPECT_THAT(Claim(c, margin), AllOf(HasSubstr("over the limit already"),
                                      Not(HasSubstr("about"))));
  EXPECT_THAT(Claim(CompareLabelled(1'000, 1, 1), 1e-12),
              HasSubstr("no number of examples can bound"));
}

TEST(ChooseOnPath, StopsAtTheFirstThatDoesNotHold) {
  const std::vector<Comparison> path = {
      CompareLabelled(500, 0, 0), CompareLabelled(500, 0, 0),
      CompareLabelled(500, 20, 0), CompareLabelled(500, 0, 0)};
  EXPECT_EQ(ChooseOnPath(path, 0.01), 1);
  EXPECT_EQ(ChooseOnPath({CompareLabelled(50, 0, 0)}, 0.01), -1);
}

// The published arithmetic of two models (floating-point operations of a token
// at a context of 4,096).
TEST(FlopsPerToken, FollowsThePublishedArithmetic) {
  const PrunableModel smollm = UniformModel(30, 3, 3);
  const ModelWidths smollm_widths{.hidden = 576,
                                  .head_dim = 64,
                                  .vocab = 49'152,
                                  .ffn = std::vector<int64_t>(30, 1'536)};
  const std::vector<LayerDrop> none(30);
  const TokenWork small = FlopsPerToken(smollm, smollm_widths, none, 4'096);
  EXPECT_EQ(small.projections, 53'084'160);
  EXPECT_EQ(small.attention, 283'115'520);
  EXPECT_EQ(small.mlp, 159'252'480);
  EXPECT_EQ(small.output, 56'623'104);

  const PrunableModel llama = UniformModel(32, 8, 4);
  const ModelWidths llama_widths{.hidden = 4'096,
                                 .head_dim = 128,
                                 .vocab = 128'256,
                                 .ffn = std::vector<int64_t>(32, 14'336)};
  const TokenWork large =
      FlopsPerToken(llama, llama_widths, std::vector<LayerDrop>(32), 4'096);
  EXPECT_EQ(large.projections, 2'684'354'560);
  EXPECT_EQ(large.attention, 2'147'483'648);
  EXPECT_EQ(large.mlp, 11'274'289'152);
  EXPECT_EQ(large.output, 1'050'673'152);
}

// Half of BERT-base's heads can save 17.57 % at 128 tokens: 1.213 times.
TEST(FlopsPerToken, BoundsTheSpeedOfHalfTheHeads) {
  const PrunableModel bert = UniformModel(12, 12, 1);
  const ModelWidths widths{.hidden = 768,
                           .head_dim = 64,
                           .vocab = 0,
                           .gated_mlp = false,
                           .ffn = std::vector<int64_t>(12, 3'072)};
  std::vector<LayerDrop> half(12);
  for (LayerDrop& drop : half) {
    drop.query_heads = {0, 1, 2, 3, 4, 5};
    drop.kv_heads = drop.query_heads;
  }
  const auto dense = static_cast<double>(
      FlopsPerToken(bert, widths, std::vector<LayerDrop>(12), 128).total());
  const auto pruned =
      static_cast<double>(FlopsPerToken(bert, widths, half, 128).total());
  EXPECT_NEAR(1 - pruned / dense, 0.1757, 5e-5);
  EXPECT_NEAR(dense / pruned, 1.213, 5e-4);
}

}  // namespace
}  // namespace headcount
