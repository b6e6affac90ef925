#include "server/validation.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "served_models.h"
#include "server/classification.h"
#include "server/errors.h"
#include "server/limits.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The field that the BadRequest of `status` names.
std::string FieldOf(const absl::Status& status) {
  const absl::optional<absl::Cord> payload =
      status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  google::rpc::BadRequest bad_request;
  if (!payload.has_value() ||
      !bad_request.ParseFromString(std::string(*payload))) {
    return "";
  }
  return bad_request.field_violations(0).field();
}

v1::GenerateRequest GoodRequest() {
  v1::GenerateRequest request;
  request.mutable_tokens()->add_ids(0);
  request.mutable_tokens()->add_ids(5);
  request.set_max_tokens(8);
  return request;
}

class Validation : public ::testing::Test {
 protected:
  const ServedModel model_ = MakeServedModel("tiny", 0, {"spam", "ham"});
};

TEST_F(Validation, FillsInTheDefaults) {
  v1::GenerateRequest request;
  request.set_text("hello");
  const absl::StatusOr<Request> result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  const auto prompt = static_cast<int32_t>(result->prompt.size());
  EXPECT_EQ(result->sampling.temperature, 0.0f);
  EXPECT_EQ(result->sampling.top_k, 0);
  EXPECT_EQ(result->sampling.top_p, 1.0f);
  EXPECT_EQ(result->sampling.min_p, 0.0f);
  EXPECT_EQ(result->sampling.max_tokens, 32 - prompt);
  EXPECT_FALSE(result->score_from.has_value());
  EXPECT_THAT(result->candidates, IsEmpty());
}

TEST_F(Validation, TakesOverWhatIsAsked) {
  v1::GenerateRequest request = GoodRequest();
  v1::SamplingParams& sampling = *request.mutable_sampling();
  sampling.set_temperature(0.5f);
  sampling.set_top_k(7);
  sampling.set_top_p(0.9f);
  sampling.set_min_p(0.1f);
  sampling.set_seed(42);
  request.set_min_tokens(2);
  request.add_stop("END");
  request.add_stop_token_ids(9);
  request.set_ignore_eos(true);
  request.set_top_logprobs(3);
  const absl::StatusOr<Request> result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->prompt, ElementsAre(0, 5));
  EXPECT_EQ(result->sampling.temperature, 0.5f);
  EXPECT_EQ(result->sampling.top_k, 7);
  EXPECT_EQ(result->sampling.top_p, 0.9f);
  EXPECT_EQ(result->sampling.min_p, 0.1f);
  EXPECT_EQ(result->sampling.seed, 42u);
  EXPECT_EQ(result->sampling.max_tokens, 8);
  EXPECT_EQ(result->sampling.min_tokens, 2);
  EXPECT_THAT(result->sampling.stops, ElementsAre("END"));
  EXPECT_THAT(result->sampling.stop_ids, ElementsAre(9));
  EXPECT_TRUE(result->sampling.ignore_eos);
  EXPECT_TRUE(result->sampling.logprobs);
  EXPECT_EQ(result->sampling.top_logprobs, 3);
}

struct BadField {
  std::string field;
  std::function<void(v1::GenerateRequest&)> spoil;
  Reason reason = Reason::kInvalidRequest;
};

std::vector<BadField> BadFields(int32_t vocab) {
  using R = v1::GenerateRequest;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<BadField> cases;
  const auto floats = [&cases](const char* field, std::vector<float> values,
                               auto set) {
    for (const float value : values) {
      cases.push_back(
          {field, [=](R& r) { (r.mutable_sampling()->*set)(value); }});
    }
  };
  floats("sampling.temperature", {kNan, kInf, -kInf, -0.1f, 100.1f, 1e38f},
         &v1::SamplingParams::set_temperature);
  floats("sampling.top_p", {kNan, kInf, -kInf, 0.0f, -1.0f, 1.1f},
         &v1::SamplingParams::set_top_p);
  floats("sampling.min_p", {kNan, kInf, -0.1f, 1.1f},
         &v1::SamplingParams::set_min_p);
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  constexpr int32_t kLeast = std::numeric_limits<int32_t>::min();
  for (const int32_t k : {-1, kLeast, vocab + 1, kMost}) {
    cases.push_back(
        {"sampling.top_k", [k](R& r) { r.mutable_sampling()->set_top_k(k); }});
  }
  for (const int32_t tokens : {0, -1, kLeast, 33, kMost}) {
    cases.push_back(
        {"max_tokens", [tokens](R& r) { r.set_max_tokens(tokens); }});
  }
  for (const int32_t tokens : {-1, kLeast, 9, kMost}) {
    cases.push_back(
        {"min_tokens", [tokens](R& r) { r.set_min_tokens(tokens); }});
  }
  for (const int32_t count : {-1, kLeast, 21, kMost}) {
    cases.push_back(
        {"top_logprobs", [count](R& r) { r.set_top_logprobs(count); }});
  }
  for (const int32_t id : {-1, kLeast, vocab, kMost}) {
    cases.push_back({"stop_token_ids[0]", [id](R& r) {
                       r.add_stop_token_ids(id);
                       r.set_min_tokens(1);
                     }});
    cases.push_back(
        {"tokens.ids[1]", [id](R& r) { r.mutable_tokens()->set_ids(1, id); }});
  }
  cases.push_back({"stop_token_ids",
                   [](R& r) { r.mutable_stop_token_ids()->Resize(65, 1); }});
  cases.push_back({"stop", [](R& r) {
                     for (int i = 0; i < 9; ++i) r.add_stop("x");
                   }});
  cases.push_back({"stop[0]", [](R& r) { r.add_stop(""); }});
  cases.push_back({"stop[0]", [](R& r) { r.add_stop(std::string(65, 'x')); }});
  cases.push_back({"prompt", [](R& r) { r.clear_prompt(); }});
  cases.push_back({"text", [](R& r) { r.set_text(""); }});
  cases.push_back({"tokens.ids", [](R& r) { r.mutable_tokens()->Clear(); }});
  cases.push_back({"text", [](R& r) { r.set_text(std::string(3 << 20, 'x')); },
                   Reason::kTooLong});
  cases.push_back(
      {"text",
       [](R& r) { r.set_text("1234567890123456789012345678901234567890"); },
       Reason::kTooLong});
  for (const int tokens : {32, 33, 1000}) {
    cases.push_back({"tokens.ids",
                     [tokens](R& r) {
                       r.mutable_tokens()->mutable_ids()->Resize(tokens, 1);
                     },
                     Reason::kTooLong});
  }
  cases.push_back({"max_tokens",
                   [](R& r) {
                     r.mutable_tokens()->mutable_ids()->Resize(30, 1);
                     r.set_max_tokens(3);
                   },
                   Reason::kTooLong});
  return cases;
}

TEST_F(Validation, RefusesEachBadFieldByName) {
  ASSERT_TRUE(ToEngineRequest(GoodRequest(), model_).ok());
  for (const BadField& bad : BadFields(model_.vocab)) {
    v1::GenerateRequest request = GoodRequest();
    bad.spoil(request);
    SCOPED_TRACE(request.ByteSizeLong() < 1000 ? request.ShortDebugString()
                                               : bad.field);
    const absl::Status status = ToEngineRequest(request, model_).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(FieldOf(status), bad.field);
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.field));
    EXPECT_EQ(ReasonOf(status), bad.reason);
  }
}

TEST_F(Validation, TakesTheEdgesOfEachRange) {
  const std::vector<std::function<void(v1::GenerateRequest&)>> cases = {
      [](auto& r) { r.mutable_sampling()->set_temperature(-0.0f); },
      [](auto& r) { r.mutable_sampling()->set_temperature(1e-45f); },
      [](auto& r) { r.mutable_sampling()->set_temperature(100.0f); },
      [](auto& r) { r.mutable_sampling()->set_top_p(1e-45f); },
      [](auto& r) { r.mutable_sampling()->set_min_p(1.0f); },
      [this](auto& r) { r.mutable_sampling()->set_top_k(model_.vocab); },
      [this](auto& r) { r.add_stop_token_ids(model_.vocab - 1); },
      [](auto& r) { r.set_max_tokens(30); },
      [](auto& r) { r.set_min_tokens(8); },
      [](auto& r) { r.add_stop(std::string(64, 'x')); },
      [](auto& r) {
        r.mutable_tokens()->mutable_ids()->Resize(31, 1);
        r.set_max_tokens(1);
      },
  };
  for (const auto& change : cases) {
    v1::GenerateRequest request = GoodRequest();
    change(request);
    const absl::StatusOr<Request> result = ToEngineRequest(request, model_);
    EXPECT_TRUE(result.ok()) << result.status();
  }
}

TEST_F(Validation, NeverRepeatsThePrompt) {
  v1::GenerateRequest request;
  std::string secret;
  for (int i = 0; i < 40; ++i) secret += "swordfish ";
  request.set_text(secret);
  const absl::Status status = ToEngineRequest(request, model_).status();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(ToGrpcStatus(status).error_message().find("swordfish"),
            std::string::npos);
}

TEST_F(Validation, ScoresTheContinuationAlone) {
  v1::ScoreRequest request;
  request.mutable_prompt_tokens()->add_ids(3);
  request.mutable_prompt_tokens()->add_ids(4);
  request.mutable_continuation_tokens()->add_ids(5);
  absl::StatusOr<Request> result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->prompt, ElementsAre(3, 4, 5));
  EXPECT_EQ(result->score_from, 2);
  EXPECT_EQ(result->sampling.max_tokens, 0);

  request.clear_prompt();
  request.mutable_continuation_tokens()->add_ids(6);
  result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->score_from, 1);

  request.mutable_continuation_tokens()->mutable_ids()->Truncate(1);
  result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->score_from.has_value());
}

TEST_F(Validation, RefusesBadScoreRequests) {
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

TEST_F(Validation, ClassifiesWithOneRequestForSingleTokenLabels) {
  v1::ClassifyRequest request;
  request.add_inputs("win money");
  request.add_inputs("");
  const absl::StatusOr<std::vector<Request>> result =
      ToEngineRequests(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->size(), 2u);
  for (const Request& part : *result) {
    EXPECT_THAT(part.candidates,
                ElementsAre(model_.tokenizer->Encode("spam")[0],
                            model_.tokenizer->Encode("ham")[0]));
    EXPECT_EQ(part.prompt.front(), model_.tokenizer->SpecialId("<|bos|>"));
    EXPECT_EQ(part.prompt.back(), model_.tokenizer->SpecialId("<|label|>"));
    EXPECT_FALSE(part.score_from.has_value());
  }
}

TEST_F(Validation, ClassifiesWithARequestForEachLabelOtherwise) {
  const ServedModel model = MakeServedModel("tiny", 0, {"spam", "not spam"});
  v1::ClassifyRequest request;
  request.add_inputs("hello");
  const absl::StatusOr<std::vector<Request>> result =
      ToEngineRequests(request, model);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->size(), 2u);
  for (size_t label = 0; label < 2; ++label) {
    const Request& part = (*result)[label];
    ASSERT_TRUE(part.score_from.has_value());
    EXPECT_THAT(part.candidates, IsEmpty());
    EXPECT_EQ(std::vector<int32_t>(part.prompt.begin() + *part.score_from,
                                   part.prompt.end()),
              model.classify->labels[label].ids);
  }
}

TEST_F(Validation, RefusesBadClassifyRequests) {
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

TEST_F(Validation, BoundsTheSequencesOfAClassifyCall) {
  // 256 labels of several tokens: 256 sequences an input.
  ServedModel model = MakeServedModel("tiny", 0, {"spam", "not spam"});
  model.max_context = 8192;
  for (int i = 0; i < 254; ++i) {
    model.classify->labels.push_back({"x", {1, i}});
  }
  v1::ClassifyRequest request;
  for (int i = 0; i < 8; ++i) request.add_inputs(std::string(6000, '7'));
  const absl::Status status = ToEngineRequests(request, model).status();
  EXPECT_EQ(FieldOf(status), "inputs[2]") << status;
}

TEST(SetUpClassify, RefusesWhatTheTokenizerCannotTell) {
  const auto tokenizer = MailroomTokenizer();
  config::v1::Classify spec;
  spec.set_template_("no place");
  spec.add_labels("a");
  spec.add_labels("b");
  EXPECT_THAT(std::string(SetUpClassify(spec, *tokenizer).status().message()),
              ::testing::StartsWith("classify.template: \"no place\" must"));
}

TEST(Classify, NormalisesAmongTheLabels) {
  const ServedModel model = MakeServedModel("tiny", 0, {"spam", "ham"});
  const std::vector<double> logprobs = {std::log(0.1), std::log(0.3)};
  const v1::Classification result = Classify(*model.classify, logprobs, 9);
  EXPECT_EQ(result.label(), "ham");
  EXPECT_EQ(result.prompt_tokens(), 9);
  ASSERT_EQ(result.labels_size(), 2);
  EXPECT_EQ(result.labels(0).label(), "ham");
  EXPECT_NEAR(result.labels(0).probability(), 0.75, 1e-6);
  EXPECT_NEAR(result.labels(1).probability(), 0.25, 1e-6);
  EXPECT_NEAR(result.labels(1).logprob(), std::log(0.1), 1e-6);
}

TEST(Classify, StandsVeryUnlikelyLabels) {
  const ServedModel model = MakeServedModel("tiny", 0, {"spam", "ham"});
  const std::vector<double> logprobs = {-1000.0, -1001.0};
  const v1::Classification result = Classify(*model.classify, logprobs, 1);
  EXPECT_NEAR(result.labels(0).probability(), 1 / (1 + std::exp(-1)), 1e-6);
}

TEST_F(Validation, BoundsTokenizeAndDetokenize) {
  v1::TokenizeRequest tokenize;
  tokenize.set_text(std::string(kMaxTokenizeBytes, 'x'));
  EXPECT_TRUE(CheckTokenizeRequest(tokenize).ok());
  tokenize.mutable_text()->push_back('x');
  EXPECT_EQ(FieldOf(CheckTokenizeRequest(tokenize)), "text");
  v1::DetokenizeRequest detokenize;
  detokenize.add_ids(model_.vocab);
  EXPECT_EQ(FieldOf(CheckDetokenizeRequest(detokenize, model_)), "ids[0]");
  detokenize.mutable_ids()->Resize(kMaxDetokenizeIds + 1, 0);
  EXPECT_EQ(FieldOf(CheckDetokenizeRequest(detokenize, model_)), "ids");
}

}  // namespace
}  // namespace headcount
