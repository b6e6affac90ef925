#include "text/pre_tokenizer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Pieces(std::vector<SplitRule> rules,
                                std::string_view text) {
  std::vector<std::string> pieces;
  for (const std::string_view piece : PreTokenize(rules, text)) {
    pieces.emplace_back(piece);
  }
  return pieces;
}

// The expectations follow from the regular expressions; where they are subtle,
// Hugging Face tokenizers 0.23 (Oniguruma) was asked.

TEST(PreTokenizerTest, Gpt2PatternSplitsWordsNumbersAndSigns) {
  const auto split = [](std::string_view text) {
    return Pieces({SplitRule::kGpt2}, text);
  };
  EXPECT_THAT(split(""), IsEmpty());
  EXPECT_THAT(split("Hello, world 123!?"),
              ElementsAre("Hello", ",", " world", " 123", "!?"));
  EXPECT_THAT(split("don't I'LL 'sign"),
              ElementsAre("don", "'t", " I", "'", "LL", " '", "sign"));
  EXPECT_THAT(split("'sign"), ElementsAre("'s", "ign"));
  EXPECT_THAT(split("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(split("a \n\n b"), ElementsAre("a", " \n\n", " b"));
  EXPECT_THAT(split("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(split("a  "), ElementsAre("a", "  "));
  EXPECT_THAT(split(" \u00A0 x"), ElementsAre(" \u00A0", " x"));
  EXPECT_THAT(split("  \u180Ea"), ElementsAre(" ", " \u180E", "a"));
  EXPECT_THAT(split("e\u0301e"), ElementsAre("e", "\u0301", "e"));
}

TEST(PreTokenizerTest, Llama3PatternTakesThreeDigitsAndNewlinesAfterSigns) {
  const auto split = [](std::string_view text) {
    return Pieces({SplitRule::kLlama3}, text);
  };
  EXPECT_THAT(split("1234567"), ElementsAre("123", "456", "7"));
  EXPECT_THAT(split("x 12"), ElementsAre("x", " ", "12"));
  EXPECT_THAT(split("I'LL'sS'\u017Fx"),
              ElementsAre("I", "'LL", "'s", "S", "'\u017F", "x"));
  EXPECT_THAT(split("(a)\tb\u00A0c"), ElementsAre("(a", ")", "\tb", "\u00A0c"));
  EXPECT_THAT(split("end.\r\n\r\nNext"),
              ElementsAre("end", ".\r\n\r\n", "Next"));
  EXPECT_THAT(split("a \n \n  b"), ElementsAre("a", " \n \n", " ", " b"));
  EXPECT_THAT(split("\n\nb"), ElementsAre("\n\n", "b"));
  EXPECT_THAT(split(" !"), ElementsAre(" !"));
  EXPECT_THAT(split("  !"), ElementsAre(" ", " !"));
  EXPECT_THAT(split("\t!"), ElementsAre("\t", "!"));
  EXPECT_THAT(split("a \r"), ElementsAre("a", " \r"));
  EXPECT_THAT(split("e\u0301e"), ElementsAre("e", "\u0301e"));
}

TEST(PreTokenizerTest, Qwen2PatternTakesSingleDigits) {
  EXPECT_THAT(Pieces({SplitRule::kQwen2}, "a 12\u00B2"),
              ElementsAre("a", " ", "1", "2", "\u00B2"));
}

TEST(PreTokenizerTest, DigitsAreOneByOneOrInRuns) {
  EXPECT_THAT(Pieces({SplitRule::kIndividualDigits}, "ab12 \u06603"),
              ElementsAre("ab", "1", "2", " ", "\u0660", "3"));
  EXPECT_THAT(Pieces({SplitRule::kDigitRuns}, "ab12 \u06603"),
              ElementsAre("ab", "12", " ", "\u06603"));
}

TEST(PreTokenizerTest, ALaterRuleSeesEachPieceAlone) {
  // Alone, the GPT-2 pattern leaves the second space to the digits.
  EXPECT_THAT(Pieces({SplitRule::kIndividualDigits, SplitRule::kGpt2}, "a  12"),
              ElementsAre("a", "  ", "1", "2"));
  EXPECT_THAT(Pieces({SplitRule::kGpt2}, "a  12"),
              ElementsAre("a", " ", " 12"));
  EXPECT_THAT(Pieces({}, "a  12"), ElementsAre("a  12"));
}

TEST(PreTokenizerTest, OnlyTheExactPatternsAreKnown) {
  EXPECT_EQ(SplitRuleOf(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?)"
                        R"(\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
                        R"(\s*[\r\n]+|\s+(?!\S)|\s+)"),
            SplitRule::kLlama3);
  EXPECT_EQ(SplitRuleOf(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?)"
                        R"(\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
                        R"(\s*[\r\n]+|\s+(?!\S)|\s+)"),
            SplitRule::kQwen2);
  EXPECT_FALSE(SplitRuleOf(R"(\s+)"));
  EXPECT_FALSE(SplitRuleOf(""));
}

}  // namespace
}  // namespace headcount
