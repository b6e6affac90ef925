#include "text/prompt_template.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/text/tiny_tokenizer.h"

namespace headcount {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int32_t kBos = 261;
constexpr int32_t kEos = 262;

Tokenizer Tiny() {
  return Tokenizer::Parse(TinyTokenizerJson().dump()).value();
}

TEST(PromptTemplateTest, SpecialsOfTheTemplateAreSpecial) {
  const Tokenizer tokenizer = Tiny();
  const auto prompt =
      PromptTemplate::Parse("<|bos|>a{input}b<|eos|>", tokenizer).value();
  EXPECT_THAT(prompt.Render("x", tokenizer),
              ElementsAre(kBos, 'a', 'x', 'b', kEos));
  EXPECT_THAT(prompt.Render("", tokenizer), ElementsAre(kBos, 'a', 'b', kEos));
  EXPECT_EQ(prompt.overhead(), 4);
}

TEST(PromptTemplateTest, SpecialsOfTheInputAreText) {
  const Tokenizer tokenizer = Tiny();
  const auto prompt = PromptTemplate::Parse("{input}", tokenizer).value();
  EXPECT_EQ(prompt.overhead(), 0);
  for (const char* input : {"<|bos|>", "<|eos|>", "{input}", "x<|eos|>y"}) {
    const std::vector<int32_t> ids = prompt.Render(input, tokenizer);
    EXPECT_THAT(ids, Not(Contains(kBos))) << input;
    EXPECT_THAT(ids, Not(Contains(kEos))) << input;
    EXPECT_EQ(tokenizer.Decode(ids), input);
  }
}

TEST(PromptTemplateTest, TheInputIsTokenisedApart) {
  const Tokenizer tokenizer = Tiny();
  // "the" is one token, but not across the border.
  const auto prompt = PromptTemplate::Parse("t{input}e", tokenizer).value();
  EXPECT_THAT(prompt.Render("h", tokenizer), ElementsAre('t', 'h', 'e'));
}

TEST(PromptTemplateTest, TheInputIsNamedExactlyOnce) {
  const Tokenizer tokenizer = Tiny();
  for (const char* text : {"", "<|bos|>", "{Input}", "{input}{input}"}) {
    const auto prompt = PromptTemplate::Parse(text, tokenizer);
    EXPECT_EQ(prompt.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(prompt.status().message()),
                HasSubstr("{input} exactly once"));
  }
}

}  // namespace
}  // namespace headcount
