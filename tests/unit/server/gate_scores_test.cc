#include "server/gate_scores.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/layer_inputs.h"

namespace headcount {
namespace {

// Three layers of two query heads.
std::shared_ptr<const ServedModel> SmallModel(int64_t hidden) {
  auto model = std::make_shared<ServedModel>();
  model->vocab = 8;
  model->shape.layers = 3;
  model->shape.hidden = hidden;
  model->shape.heads = {{2, 1}, {2, 1}, {2, 1}};
  return model;
}

CheckedExample Target() {
  CheckedExample example;
  example.prompt = {1, 2, 3};
  example.target = {4, 5};
  return example;
}

Scores SomeScores() { return {.logprobs = {{-1, -1}}, .divergences = {0, 0}}; }

TEST(GateScoresTest, SettingsBeginAtTheFirstLayerThatTheyTouch) {
  GateScores work(SmallModel(4), {Target()},
                  {{1, 1, 1, 1, 0, 1},
                   {1, 1, 0.5f, 1, 0, 1},
                   {1, 1, 1, 1, 1, 1},
                   {0, 1, 1, 1, 1, 1}});
  const std::optional<CalibrationPart> dense = work.Begin();
  ASSERT_TRUE(dense.has_value());
  ASSERT_NE(dense->request.kept_inputs, nullptr);
  EXPECT_EQ(dense->request.kept_inputs->tokens(), 4u);
  EXPECT_EQ(dense->request.inputs, nullptr);
  EXPECT_FALSE(work.Begin().has_value()) << "its inputs are not there yet";
  ASSERT_TRUE(work.End(dense->id, SomeScores()).ok());
  for (const int32_t first : {2, 1, 3, 0}) {
    const std::optional<CalibrationPart> part = work.Begin();
    ASSERT_TRUE(part.has_value());
    EXPECT_EQ(part->request.kept_inputs, nullptr);
    EXPECT_EQ(part->request.first_layer, first);
    EXPECT_EQ(part->request.inputs != nullptr, first > 0);
    ASSERT_TRUE(work.End(part->id, SomeScores()).ok());
  }
  EXPECT_EQ(dense->request.kept_inputs.use_count(), 1)
      << "held by the test only";
}

// As a search asks: what is gone, and then that and a little more.
TEST(GateScoresTest, SettingsBeginWhereTheyLeaveTheFirstOne) {
  GateScores work(SmallModel(4), {Target()},
                  {{1, 1, 0, 1, 1, 1},
                   {1, 1, 0, 1, 1, 0},    // as the first up to layer 2
                   {1, 1, 0, 0, 1, 1},    // in neither beyond layer 1
                   {1, 1, 1, 1, 1, 0},    // nearer to the dense run
                   {1, 1, 0, 1, 1, 1}});  // the first again
  const std::optional<CalibrationPart> dense = work.Begin();
  ASSERT_TRUE(dense.has_value());
  ASSERT_TRUE(work.End(dense->id, SomeScores()).ok());
  const std::optional<CalibrationPart> first = work.Begin();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->request.inputs, dense->request.kept_inputs);
  EXPECT_EQ(first->request.first_layer, 1);
  const std::shared_ptr<LayerInputs> kept = first->request.kept_inputs;
  ASSERT_NE(kept, nullptr);
  EXPECT_FALSE(work.Begin().has_value()) << "its inputs are not there yet";
  ASSERT_TRUE(work.End(first->id, SomeScores()).ok());
  const std::shared_ptr<const LayerInputs> whole = dense->request.kept_inputs;
  const std::vector<std::pair<std::shared_ptr<const LayerInputs>, int32_t>>
      expected = {{kept, 2}, {whole, 1}, {whole, 2}, {kept, 3}};
  for (const auto& [inputs, layer] : expected) {
    const std::optional<CalibrationPart> part = work.Begin();
    ASSERT_TRUE(part.has_value());
    EXPECT_EQ(part->request.kept_inputs, nullptr);
    EXPECT_EQ(part->request.inputs, inputs);
    EXPECT_EQ(part->request.first_layer, layer);
    ASSERT_TRUE(work.End(part->id, SomeScores()).ok());
  }
}

TEST(GateScoresTest, NobodyWaitsForAFirstSettingThatSavesNothing) {
  GateScores work(SmallModel(4), {Target()},
                  {{1, 1, 0, 1, 1, 1}, {0, 1, 1, 1, 1, 1}});
  const std::optional<CalibrationPart> dense = work.Begin();
  ASSERT_TRUE(work.End(dense->id, SomeScores()).ok());
  const std::optional<CalibrationPart> first = work.Begin();
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->request.kept_inputs, nullptr);
  EXPECT_TRUE(work.Begin().has_value());
}

TEST(GateScoresTest, ATextWithTooManyInputsIsComputedWhole) {
  // 4 inputs x 4 tokens x 8 Mi x 4 bytes.
  GateScores work(SmallModel(8 << 20), {Target()}, {{1, 1, 1, 1, 0, 1}});
  const std::optional<CalibrationPart> dense = work.Begin();
  ASSERT_TRUE(dense.has_value());
  EXPECT_EQ(dense->request.kept_inputs, nullptr);
  ASSERT_TRUE(work.End(dense->id, SomeScores()).ok());
  const std::optional<CalibrationPart> part = work.Begin();
  ASSERT_TRUE(part.has_value());
  EXPECT_EQ(part->request.inputs, nullptr);
  EXPECT_EQ(part->request.first_layer, 0);
}

}  // namespace
}  // namespace headcount
