#include "server/validation.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "field_of.h"
#include "gmock/gmock.h"
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
  EXPECT_EQ(result->sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(result->sampling.presence_penalty, 0.0f);
  EXPECT_EQ(result->sampling.frequency_penalty, 0.0f);
  EXPECT_THAT(result->sampling.logit_bias, IsEmpty());
  EXPECT_THAT(result->sampling.choices, IsEmpty());
  EXPECT_THAT(result->continuations, IsEmpty());
  EXPECT_THAT(result->head_gates, IsEmpty());
}

TEST_F(Validation, TakesOverWhatIsAsked) {
  v1::GenerateRequest request = GoodRequest();
  v1::SamplingParams& sampling = *request.mutable_sampling();
  sampling.set_temperature(0.5f);
  sampling.set_top_k(7);
  sampling.set_top_p(0.9f);
  sampling.set_min_p(0.1f);
  sampling.set_seed(42);
  sampling.set_repetition_penalty(1.25f);
  sampling.set_presence_penalty(-0.5f);
  sampling.set_frequency_penalty(0.75f);
  (*sampling.mutable_logit_bias())[11] = 2.0f;
  (*sampling.mutable_logit_bias())[3] = -100.0f;
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
  EXPECT_EQ(result->sampling.repetition_penalty, 1.25f);
  EXPECT_EQ(result->sampling.presence_penalty, -0.5f);
  EXPECT_EQ(result->sampling.frequency_penalty, 0.75f);
  EXPECT_THAT(result->sampling.logit_bias,
              ElementsAre(std::pair<const int32_t, float>(3, -INFINITY),
                          std::pair<const int32_t, float>(11, 2.0f)));
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
  floats("sampling.repetition_penalty",
         {kNan, kInf, 0.0f, -1.0f, 0.009f, 100.1f},
         &v1::SamplingParams::set_repetition_penalty);
  floats("sampling.presence_penalty", {kNan, kInf, -kInf, -2.1f, 2.1f},
         &v1::SamplingParams::set_presence_penalty);
  floats("sampling.frequency_penalty", {kNan, kInf, -kInf, -2.1f, 2.1f},
         &v1::SamplingParams::set_frequency_penalty);
  for (const float bias : {kNan, kInf, -kInf, -100.1f, 100.1f}) {
    cases.push_back({"sampling.logit_bias[5]", [bias](R& r) {
                       (*r.mutable_sampling()->mutable_logit_bias())[5] = bias;
                     }});
  }
  for (const int32_t id : {-1, vocab}) {
    cases.push_back({absl::StrCat("sampling.logit_bias[", id, "]"), [id](R& r) {
                       (*r.mutable_sampling()->mutable_logit_bias())[id] = 1;
                     }});
  }
  cases.push_back({"sampling.logit_bias", [](R& r) {
                     for (int id = 0; id < 301; ++id) {
                       (*r.mutable_sampling()->mutable_logit_bias())[id] = 1;
                     }
                   }});
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
  const auto choices = [&cases](std::string field,
                                std::vector<std::string> texts,
                                std::function<void(R&)> spoil = nullptr,
                                Reason reason = Reason::kInvalidRequest) {
    cases.push_back({std::move(field),
                     [texts, spoil](R& r) {
                       r.clear_max_tokens();
                       for (const std::string& text : texts) {
                         r.add_choices(text);
                       }
                       if (spoil) spoil(r);
                     },
                     reason});
  };
  choices("choices", std::vector<std::string>(257, "x"));
  choices("choices[1]", {"spam", ""});
  choices("choices[0]", {std::string(1025, 'x')});
  choices("choices[2]", {"spam", "ham", "spam"});
  choices("stop", {"spam"}, [](R& r) { r.add_stop("x"); });
  choices("stop_token_ids", {"spam"}, [](R& r) { r.add_stop_token_ids(1); });
  choices("min_tokens", {"spam"}, [](R& r) { r.set_min_tokens(1); });
  choices("ignore_eos", {"spam"}, [](R& r) { r.set_ignore_eos(true); });
  choices("max_tokens", {"1234567"}, [](R& r) { r.set_max_tokens(6); });
  choices(
      "choices", {"1234567"},
      [](R& r) { r.mutable_tokens()->mutable_ids()->Resize(26, 1); },
      Reason::kTooLong);
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

TEST_F(Validation, AnAnswerOfChoicesIsAsLongAsTheLongest) {
  v1::GenerateRequest request = GoodRequest();
  request.clear_max_tokens();
  for (const char* text : {"ham", "12345", "spam"}) request.add_choices(text);
  const absl::StatusOr<Request> result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(result->sampling.choices.size(), 3u);
  EXPECT_EQ(result->sampling.choices[2], model_.tokenizer->Encode("spam"));
  const size_t digits = result->sampling.choices[1].size();
  EXPECT_GT(digits, 1u);
  EXPECT_EQ(result->sampling.max_tokens, static_cast<int32_t>(digits));
}

TEST_F(Validation, AChoiceMayBeginAnotherIfTheModelHasAnEndOfText) {
  v1::GenerateRequest request = GoodRequest();
  for (const char* text : {"ham", "12345", "1234"}) request.add_choices(text);
  const absl::Status status = ToEngineRequest(request, model_).status();
  EXPECT_EQ(FieldOf(status), "choices[2]") << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("begins choices[1]"));
  ServedModel model = model_;
  model.eos_ids = {1};
  const absl::StatusOr<Request> result = ToEngineRequest(request, model);
  EXPECT_TRUE(result.ok()) << result.status();
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
