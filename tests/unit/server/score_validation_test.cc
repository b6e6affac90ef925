// Requests that score: Score and Classify; and the gates of any request.
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "field_of.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "served_models.h"
#include "server/errors.h"
#include "server/validation.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ScoreValidation : public ::testing::Test {
 protected:
  const ServedModel model_ = MakeServedModel("tiny", 0, {"spam", "ham"});
};

TEST_F(ScoreValidation, ScoresTheContinuationAlone) {
  v1::ScoreRequest request;
  request.mutable_prompt_tokens()->add_ids(3);
  request.mutable_prompt_tokens()->add_ids(4);
  request.mutable_continuation_tokens()->add_ids(5);
  absl::StatusOr<Request> result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->prompt, ElementsAre(3, 4));
  EXPECT_THAT(result->continuations, ElementsAre(ElementsAre(5)));
  EXPECT_EQ(result->sampling.max_tokens, 0);

  request.clear_prompt();
  request.mutable_continuation_tokens()->add_ids(6);
  result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->prompt, ElementsAre(5));
  EXPECT_THAT(result->continuations, ElementsAre(ElementsAre(6)));

  request.mutable_continuation_tokens()->mutable_ids()->Truncate(1);
  result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->prompt, ElementsAre(5));
  EXPECT_THAT(result->continuations, IsEmpty());
}

TEST_F(ScoreValidation, ScoresCandidatesAfterOnePrompt) {
  v1::ScoreRequest request;
  request.mutable_prompt_tokens()->add_ids(3);
  request.add_candidates()->set_text("spam");
  request.add_candidates()->mutable_tokens()->add_ids(9);
  const absl::StatusOr<Request> result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->prompt, ElementsAre(3));
  EXPECT_THAT(result->continuations,
              ElementsAre(model_.tokenizer->Encode("spam"), ElementsAre(9)));
}

TEST_F(ScoreValidation, RefusesBadCandidates) {
  using R = v1::ScoreRequest;
  struct Case {
    std::string field;
    std::function<void(R&)> spoil;
  };
  const std::vector<Case> cases = {
      {"candidates", [](R& r) { r.set_continuation_text("x"); }},
      {"candidates",
       [](R& r) {
         for (int i = 0; i < 256; ++i) r.add_candidates()->set_text("x");
       }},
      {"candidates[1]", [](R& r) { r.add_candidates(); }},
      {"candidates[1].text", [](R& r) { r.add_candidates()->set_text(""); }},
      {"candidates[1].tokens.ids",
       [](R& r) { r.add_candidates()->mutable_tokens(); }},
      {"candidates[1].tokens.ids[0]",
       [](R& r) { r.add_candidates()->mutable_tokens()->add_ids(-1); }},
      {"prompt", [](R& r) { r.clear_prompt(); }},
      {"candidates",
       [](R& r) {
         r.add_candidates()->mutable_tokens()->mutable_ids()->Resize(32, 1);
       }},
  };
  for (const Case& bad : cases) {
    R request;
    request.mutable_prompt_tokens()->add_ids(3);
    request.add_candidates()->set_text("spam");
    bad.spoil(request);
    const absl::Status status = ToEngineRequest(request, model_).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << bad.field;
    EXPECT_EQ(FieldOf(status), bad.field) << status;
  }
}

// Three layers: four heads of which 1 is pruned, none, and two.
ServedModel ModelWithHeads() {
  ServedModel model = MakeServedModel("tiny", 0, {"spam", "ham"});
  model.description.clear_layers();
  v1::LayerHeads* layer = model.description.add_layers();
  layer->set_query_heads_unpruned(4);
  for (const int head : {0, 2, 3}) layer->add_query_heads(head);
  model.description.add_layers();
  layer = model.description.add_layers();
  layer->set_query_heads_unpruned(2);
  for (const int head : {0, 1}) layer->add_query_heads(head);
  return model;
}

v1::HeadGates SomeGates() {
  v1::HeadGates gates;
  for (const float gate : {0.5f, 0.0f, 1.0f, 0.0f}) {
    if (gates.layers().empty()) gates.add_layers();
    gates.mutable_layers(0)->add_query_heads(gate);
  }
  gates.add_layers();
  gates.add_layers();  // both empty: all 1
  return gates;
}

TEST_F(ScoreValidation, TakesOverHeadGates) {
  const ServedModel model = ModelWithHeads();
  const auto expected = ElementsAre(0.5f, 0.0f, 1.0f, 0.0f, 1.0f, 1.0f);
  v1::GenerateRequest generate;
  generate.set_text("hello");
  *generate.mutable_head_gates() = SomeGates();
  EXPECT_THAT(ToEngineRequest(generate, model)->head_gates, expected);
  v1::ScoreRequest score;
  score.set_continuation_text("hello you");
  *score.mutable_head_gates() = SomeGates();
  EXPECT_THAT(ToEngineRequest(score, model)->head_gates, expected);
  v1::ClassifyRequest classify;
  classify.add_inputs("a");
  classify.add_inputs("b");
  *classify.mutable_head_gates() = SomeGates();
  EXPECT_THAT(ToEngineRequests(classify, model)->at(1).head_gates, expected);
}

TEST_F(ScoreValidation, RefusesBadHeadGates) {
  struct Case {
    std::string field;
    std::function<void(v1::HeadGates&)> spoil;
  };
  const auto set = [](int layer, int head, float gate) {
    return [=](v1::HeadGates& gates) {
      gates.mutable_layers(layer)->set_query_heads(head, gate);
    };
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Case> cases = {
      {"head_gates.layers", [](auto& gates) { gates.clear_layers(); }},
      {"head_gates.layers", [](auto& gates) { gates.add_layers(); }},
      {"head_gates.layers[1].query_heads",
       [](auto& gates) { gates.mutable_layers(1)->add_query_heads(1); }},
      {"head_gates.layers[2].query_heads",
       [](auto& gates) { gates.mutable_layers(2)->add_query_heads(1); }},
      {"head_gates.layers[0].query_heads[0]", set(0, 0, kNan)},
      {"head_gates.layers[0].query_heads[2]", set(0, 2, -0.1f)},
      {"head_gates.layers[0].query_heads[3]", set(0, 3, 1.1f)},
      // Pruned.
      {"head_gates.layers[0].query_heads[1]", set(0, 1, 0.5f)},
  };
  const ServedModel model = ModelWithHeads();
  for (const Case& bad : cases) {
    v1::ScoreRequest request;
    request.set_continuation_text("hello you");
    *request.mutable_head_gates() = SomeGates();
    bad.spoil(*request.mutable_head_gates());
    const absl::Status status = ToEngineRequest(request, model).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << bad.field;
    EXPECT_EQ(FieldOf(status), bad.field) << status;
  }
}

TEST_F(ScoreValidation, RefusesBadScoreRequests) {
  v1::ScoreRequest request;
  EXPECT_EQ(FieldOf(ToEngineRequest(request, model_).status()), "continuation");
  request.set_continuation_text("");
  EXPECT_EQ(FieldOf(ToEngineRequest(request, model_).status()),
            "continuation_text");
  request.mutable_continuation_tokens()->add_ids(model_.vocab);
  EXPECT_EQ(FieldOf(ToEngineRequest(request, model_).status()),
            "continuation_tokens.ids[0]");
  request.mutable_continuation_tokens()->mutable_ids()->Set(0, 1);
  request.mutable_prompt_tokens()->add_ids(-1);
  EXPECT_EQ(FieldOf(ToEngineRequest(request, model_).status()),
            "prompt_tokens.ids[0]");
  request.mutable_prompt_tokens()->mutable_ids()->Resize(32, 1);
  request.mutable_prompt_tokens()->set_ids(0, 1);
  const absl::Status status = ToEngineRequest(request, model_).status();
  EXPECT_EQ(FieldOf(status), "continuation");
  EXPECT_EQ(ReasonOf(status), Reason::kTooLong);
}

TEST_F(ScoreValidation, ClassifiesEachInputByScoringTheLabelsAfterIt) {
  for (const std::string ham : {"ham", "not spam"}) {
    const ServedModel model = MakeServedModel("tiny", 0, {"spam", ham});
    v1::ClassifyRequest request;
    request.add_inputs("win money");
    request.add_inputs("");
    const absl::StatusOr<std::vector<Request>> result =
        ToEngineRequests(request, model);
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result->size(), 2u);
    for (const Request& part : *result) {
      EXPECT_THAT(part.continuations,
                  ElementsAre(model.tokenizer->Encode("spam"),
                              model.tokenizer->Encode(ham)));
      EXPECT_EQ(part.prompt.front(), model.tokenizer->SpecialId("<|bos|>"));
      EXPECT_EQ(part.prompt.back(), model.tokenizer->SpecialId("<|label|>"));
      EXPECT_EQ(part.sampling.max_tokens, 0);
    }
  }
}

TEST_F(ScoreValidation, RefusesBadClassifyRequests) {
  v1::ClassifyRequest request;
  EXPECT_EQ(FieldOf(ToEngineRequests(request, model_).status()), "inputs");
  request.add_inputs("fine");
  request.add_inputs("1234567890123456789012345678901234567890");
  const absl::Status status = ToEngineRequests(request, model_).status();
  EXPECT_EQ(FieldOf(status), "inputs[1]");
  EXPECT_EQ(ReasonOf(status), Reason::kTooLong);
  request.clear_inputs();
  for (int i = 0; i < 257; ++i) request.add_inputs("x");
  EXPECT_EQ(FieldOf(ToEngineRequests(request, model_).status()), "inputs");

  const ServedModel plain = MakeServedModel("plain", 0);
  EXPECT_TRUE(
      absl::IsFailedPrecondition(ToEngineRequests(request, plain).status()));
}

TEST_F(ScoreValidation, BoundsTheTokensOfAClassifyCall) {
  ServedModel model = MakeServedModel("tiny", 0, {"spam", "not spam"});
  model.max_context = 8192;
  // 254 labels of 120 tokens: 30,480 for each input.
  for (int i = 0; i < 254; ++i) {
    model.classify->labels.push_back({"x", std::vector<int32_t>(120, i)});
  }
  v1::ClassifyRequest request;
  for (int i = 0; i < 256; ++i) request.add_inputs("7");
  const absl::Status status = ToEngineRequests(request, model).status();
  // 4 Mi / 30,480 = 137.6, so that the 138th is too much.
  EXPECT_EQ(FieldOf(status), "inputs[137]") << status;
}

}  // namespace
}  // namespace headcount
