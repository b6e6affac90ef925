// What is asked of the engine for CollectHeadStatistics, and when.
#include "server/head_statistics_work.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "served_models.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;

std::shared_ptr<HeadStatistics> NoStatistics() {
  const HeadLayout layout =
      HeadLayout::Create({.layers = {{4, 2}}, .head_dim = 4}).value();
  return std::make_shared<HeadStatistics>(layout, /*gram=*/true);
}

std::shared_ptr<const ServedModel> SpamModel() {
  ServedModel model = MakeServedModel("mail", 0, {"spam", "ham"});
  return std::make_shared<const ServedModel>(std::move(model));
}

TEST(HeadStatisticsWork, RunsOneTextAfterTheOther) {
  HeadStatisticsWork work(SpamModel(), {{.prompt = {1}}, {.prompt = {2, 3}}},
                          /*skip_tokens=*/2, /*answers_only=*/false,
                          NoStatistics());
  std::optional<CalibrationPart> part = work.Begin();
  ASSERT_TRUE(part.has_value());
  EXPECT_THAT(part->request.prompt, ElementsAre(1));
  EXPECT_EQ(part->request.statistics_skip, 2);
  EXPECT_FALSE(work.Begin().has_value()) << "the first one runs";
  ASSERT_TRUE(work.End(part->id, {}).ok());
  EXPECT_FALSE(work.TakeResponse().has_value());
  part = work.Begin();
  ASSERT_TRUE(part.has_value());
  EXPECT_THAT(part->request.prompt, ElementsAre(2, 3));
  ASSERT_TRUE(work.End(part->id, {}).ok());
  EXPECT_FALSE(work.Begin().has_value());
  EXPECT_TRUE(work.TakeResponse().has_value());
}

TEST(HeadStatisticsWork, CountsAnswersWhereTheyAreComputed) {
  const std::vector<CheckedExample> examples = {
      // Of the target, 8 and 9 come from what is put out at 6 and 8.
      {.prompt = {5, 6}, .target = {8, 9}},
      {.prompt = {5, 6}},
      {.prompt = {7}, .classifies = true, .label = 1}};
  HeadStatisticsWork work(SpamModel(), examples, /*skip_tokens=*/0,
                          /*answers_only=*/true, NoStatistics());
  std::vector<std::vector<int32_t>> prompts;
  std::vector<int32_t> skipped;
  while (const std::optional<CalibrationPart> part = work.Begin()) {
    prompts.push_back(part->request.prompt);
    skipped.push_back(part->request.statistics_skip);
    ASSERT_TRUE(work.End(part->id, {}).ok());
  }
  EXPECT_THAT(prompts, ElementsAre(ElementsAre(5, 6, 8), ElementsAre(5, 6),
                                   ElementsAre(7)));
  EXPECT_THAT(skipped, ElementsAre(1, 1, 0));
}

}  // namespace
}  // namespace headcount
