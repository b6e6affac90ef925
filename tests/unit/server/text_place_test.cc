// Texts after a prompt, with a tokenizer that puts a space before a text that
// begins: what follows another text must not have it.
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "served_models.h"
#include "server/validation.h"
#include "tests/golden/golden.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;

class TextPlaceTest : public ::testing::Test {
 protected:
  TextPlaceTest() {
    absl::StatusOr<Tokenizer> llama2 = Tokenizer::Parse(
        ReadGzipFile(HEADCOUNT_SOURCE_DIR
                     "/tests/data/golden/tokenizers/llama2.tokenizer.json.gz"));
    CHECK(llama2.ok()) << llama2.status();
    model_.tokenizer = std::make_shared<const Tokenizer>(*std::move(llama2));
    model_.vocab = model_.tokenizer->vocab_size();
    model_.eos_ids = {2};
  }

  std::vector<int32_t> Encoded(const std::string& text, TextPlace place) const {
    return model_.tokenizer->Encode(text, place);
  }

  ServedModel model_ = MakeServedModel("llama2", 0);
};

TEST_F(TextPlaceTest, AContinuationFollowsItsPromptAndAWholeTextBegins) {
  const std::vector<int32_t> begins = Encoded("the end", TextPlace::kStart);
  const std::vector<int32_t> follows =
      Encoded("the end", TextPlace::kAfterText);
  ASSERT_NE(begins, follows);
  v1::ScoreRequest request;
  request.set_prompt_text("It is");
  request.set_continuation_text("the end");
  EXPECT_THAT(ToEngineRequest(request, model_)->continuations,
              ElementsAre(follows));
  request.clear_continuation_text();
  request.add_candidates()->set_text("the end");
  EXPECT_THAT(ToEngineRequest(request, model_)->continuations,
              ElementsAre(follows));
  request.clear_candidates();
  request.set_continuation_text("the end");
  request.set_prompt_text("");
  const absl::StatusOr<Request> whole = ToEngineRequest(request, model_);
  ASSERT_TRUE(whole.ok()) << whole.status();
  // After the tokenizer's <s>.
  EXPECT_THAT(whole->prompt, ElementsAre(1));
  EXPECT_THAT(whole->continuations, ElementsAre(begins));
}

TEST_F(TextPlaceTest, AChoiceFollowsThePrompt) {
  v1::GenerateRequest request;
  request.set_text("It is");
  for (const char* text : {" the end", "the end"}) request.add_choices(text);
  const absl::StatusOr<Request> result = ToEngineRequest(request, model_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->sampling.choices,
              ElementsAre(Encoded(" the end", TextPlace::kAfterText),
                          Encoded("the end", TextPlace::kAfterText)));
}

TEST_F(TextPlaceTest, ALabelFollowsTheTemplate) {
  config::v1::Classify spec;
  spec.add_labels("good");
  spec.add_labels("bad");
  spec.set_template_("{input}: ");
  absl::StatusOr<ClassifySetup> setup = SetUpClassify(spec, *model_.tokenizer);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(setup->labels[0].ids, Encoded("good", TextPlace::kAfterText));
  spec.set_template_("{input}</s>");
  setup = SetUpClassify(spec, *model_.tokenizer);
  ASSERT_TRUE(setup.ok()) << setup.status();
  EXPECT_EQ(setup->labels[0].ids, Encoded("good", TextPlace::kAfterToken));
}

}  // namespace
}  // namespace headcount
