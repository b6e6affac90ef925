// Runs that are taken up at a later layer: the same bits as from the first.
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/layer_inputs.h"
#include "model/model.h"
#include "tests/unit/engine/engine_fixture.h"

namespace headcount {
namespace {

constexpr size_t kLayers = 6;
constexpr size_t kHeads = 12;  // query heads of a layer
constexpr size_t kHidden = 192;

// Some heads of `layer` and of the last one are left out.
std::vector<float> GatesFrom(size_t layer) {
  std::vector<float> gates(kLayers * kHeads, 1.0f);
  for (size_t head = 0; head < kHeads; head += 2) {
    gates[layer * kHeads + head] = 0.0f;
    gates[(kLayers - 1) * kHeads + head + 1] = 0.25f;
  }
  return gates;
}

Request Target(size_t start) {
  return MakeScoreRequest(MailTokens(start, 50), {MailTokens(start + 50, 9)});
}

Request Labels(size_t start) {
  return MakeScoreRequest(MailTokens(start, 70), {{364}, {370}});
}

std::shared_ptr<LayerInputs> InputsFor(const Request& request) {
  return std::make_shared<LayerInputs>(
      kLayers, static_cast<size_t>(ComputedTokens(request).value()), kHidden);
}

TEST(EngineInputsTest, LaterLayersAloneGiveTheSameBits) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeSmallStepMailroom(&clock);
  std::vector<Request> dense = {Target(0), Labels(30)};
  for (Request& request : dense) request.kept_inputs = InputsFor(request);
  const std::vector<Heard> plain = RunAll(engine.get(), dense);
  std::vector<Request> whole;
  std::vector<Request> later;
  for (const Request& from : dense) {
    for (size_t layer = 0; layer < kLayers; ++layer) {
      Request request = from;
      request.kept_inputs = nullptr;
      request.head_gates = GatesFrom(layer);
      whole.push_back(request);
      request.inputs = from.kept_inputs;
      request.first_layer = static_cast<int32_t>(layer);
      later.push_back(request);
    }
  }
  const std::vector<Heard> expected = RunAll(engine.get(), whole);
  // Together: most steps begin before the first layer of some.
  const std::vector<Heard> together = RunAll(engine.get(), later);
  for (size_t i = 0; i < later.size(); ++i) {
    EXPECT_TRUE(SameAnswer(together[i], expected[i])) << i;
    EXPECT_FALSE(SameAnswer(expected[i], plain[i / kLayers])) << i;
    const Heard alone = RunAll(engine.get(), {later[i]}).front();
    EXPECT_TRUE(SameAnswer(alone, expected[i])) << i;
  }
}

// A run that is taken up itself keeps what others are taken up at.
TEST(EngineInputsTest, ARunThatIsTakenUpKeepsItsInputs) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeSmallStepMailroom(&clock);
  Request dense = Target(7);
  dense.kept_inputs = InputsFor(dense);
  RunAll(engine.get(), {dense});
  Request first = dense;
  first.inputs = std::exchange(first.kept_inputs, InputsFor(dense));
  first.first_layer = 1;
  first.head_gates = GatesFrom(1);
  Request more = Target(7);
  more.head_gates = first.head_gates;
  more.head_gates[3 * kHeads] = 0.0f;
  const std::vector<Heard> whole = RunAll(engine.get(), {more});
  // Beside one that lets the steps begin at layer 0.
  const std::vector<Heard> heard = RunAll(engine.get(), {first, Target(0)});
  more.inputs = first.kept_inputs;
  more.first_layer = 3;
  EXPECT_TRUE(SameAnswer(RunAll(engine.get(), {more}).front(), whole.front()));
  EXPECT_FALSE(SameAnswer(heard.front(), whole.front()));
}

TEST(EngineInputsTest, NoLayerAtAllIsTheDenseRun) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeSmallStepMailroom(&clock);
  Request request = Target(7);
  request.kept_inputs = InputsFor(request);
  const Heard dense = RunAll(engine.get(), {request}).front();
  request.inputs = std::exchange(request.kept_inputs, nullptr);
  request.first_layer = kLayers;
  EXPECT_TRUE(SameAnswer(RunAll(engine.get(), {request}).front(), dense));
}

TEST(EngineInputsTest, WhatComesBeforeTheFirstLayerIsNotComputed) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeSmallStepMailroom(&clock);
  Request other = Target(40);
  other.kept_inputs = InputsFor(other);
  const Heard expected = RunAll(engine.get(), {other}).front();
  Request request = Target(7);
  request.inputs = other.kept_inputs;
  request.first_layer = kLayers;
  const Heard heard = RunAll(engine.get(), {request}).front();
  // The rows are those of the other text; asked for are tokens of this one.
  EXPECT_FALSE(SameAnswer(heard, RunAll(engine.get(), {Target(7)}).front()));
  request.continuations = other.continuations;
  EXPECT_TRUE(SameAnswer(RunAll(engine.get(), {request}).front(), expected));
}

TEST(EngineInputsTest, OthersInTheSameStepsHearTheSame) {
  const SystemClock clock;
  const std::unique_ptr<Engine> engine = MakeSmallStepMailroom(&clock);
  Request dense = Target(3);
  dense.kept_inputs = InputsFor(dense);
  RunAll(engine.get(), {dense});
  Request later = dense;
  later.inputs = std::exchange(later.kept_inputs, nullptr);
  later.first_layer = 4;
  later.head_gates = GatesFrom(4);
  const Request other = MakeRequest(MailTokens(90, 40), 20);
  const Heard alone = RunAll(engine.get(), {other}).front();
  const std::vector<Heard> both =
      RunAll(engine.get(), {later, other, later, other});
  EXPECT_TRUE(SameAnswer(both[1], alone));
  EXPECT_TRUE(SameAnswer(both[3], alone));
}

TEST(EngineInputsTest, PreemptionTakesUpWhereItWasLeft) {
  const SystemClock clock;
  const std::unique_ptr<Engine> tight = MakeSmallStepMailroom(&clock, 1);
  Request dense = Target(0);
  dense.kept_inputs = InputsFor(dense);
  RunAll(tight.get(), {dense});
  Request later = dense;
  later.inputs = std::exchange(later.kept_inputs, nullptr);
  later.first_layer = 3;
  later.head_gates = GatesFrom(3);
  const Heard alone = RunAll(tight.get(), {later}).front();
  std::vector<Request> requests;
  for (size_t i = 0; i < 6; ++i) {
    requests.push_back(MakeRequest(MailTokens(i, 30), 120));
  }
  for (int i = 0; i < 6; ++i) requests.push_back(later);
  const std::vector<Heard> heard = RunAll(tight.get(), requests);
  EXPECT_GT(tight->Snapshot().preemptions, 0u);
  for (size_t i = 6; i < 12; ++i) EXPECT_TRUE(SameAnswer(heard[i], alone)) << i;
}

TEST(ComputedTokensTest, EachNeedsAPlaceOfItsOwn) {
  EXPECT_EQ(ComputedTokens(MakeRequest({1, 2, 3}, 0)), 3);
  EXPECT_EQ(ComputedTokens(MakeScoreRequest({1, 2}, {{3}})), 2);
  EXPECT_EQ(ComputedTokens(MakeScoreRequest({1, 2}, {{3, 4, 5}})), 4);
  EXPECT_EQ(ComputedTokens(MakeScoreRequest({1, 2}, {{3}, {4}})), 2);
  EXPECT_EQ(ComputedTokens(MakeScoreRequest({1, 2}, {{3}, {4, 5}})),
            std::nullopt);
}

}  // namespace
}  // namespace headcount
