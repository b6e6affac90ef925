#include "text/detokenizer.h"

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/text/tiny_tokenizer.h"
#include "text/unicode.h"

namespace headcount {
namespace {

constexpr int32_t kBos = 261;

Tokenizer Tiny() {
  return Tokenizer::Parse(TinyTokenizerJson().dump()).value();
}

TEST(DetokenizerTest, WaitsForTheRestOfACharacter) {
  const Tokenizer tokenizer = Tiny();
  Detokenizer detokenizer(&tokenizer);
  EXPECT_EQ(detokenizer.Push('a'), "a");
  EXPECT_EQ(detokenizer.Push(0xF0), "");
  EXPECT_EQ(detokenizer.Push(0x9F), "");
  EXPECT_EQ(detokenizer.Push(kBos), "");
  EXPECT_EQ(detokenizer.Push(0x98), "");
  EXPECT_EQ(detokenizer.Push(0x80), "\U0001F600");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(DetokenizerTest, BytesThatCannotBecomeACharacterAreReplacedAtOnce) {
  const Tokenizer tokenizer = Tiny();
  Detokenizer detokenizer(&tokenizer);
  EXPECT_EQ(detokenizer.Push(0xFF), "\uFFFD");
  EXPECT_EQ(detokenizer.Push(0xE2), "");
  EXPECT_EQ(detokenizer.Push('x'), "\uFFFDx");
  EXPECT_EQ(detokenizer.Push(0xC3), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(DetokenizerTest, IdsOutsideTheVocabularyGiveNothing) {
  const Tokenizer tokenizer = Tiny();
  Detokenizer detokenizer(&tokenizer);
  EXPECT_EQ(detokenizer.Push(-1), "");
  EXPECT_EQ(detokenizer.Push(tokenizer.vocab_size()), "");
}

TEST(DetokenizerTest, PiecesAreWholeCharactersAndAddUpToDecode) {
  const Tokenizer tokenizer = Tiny();
  std::mt19937 random(3);
  // Half of the ids are bytes of multi-byte characters.
  std::uniform_int_distribution<int32_t> any(-2, tokenizer.vocab_size() + 1);
  std::uniform_int_distribution<int32_t> high(0x80, 0xF7);
  for (int round = 0; round < 20'000; ++round) {
    std::vector<int32_t> ids(1 + random() % 12);
    for (int32_t& id : ids) id = random() % 2 == 0 ? any(random) : high(random);
    Detokenizer detokenizer(&tokenizer);
    std::string text;
    for (const int32_t id : ids) {
      const std::string piece = detokenizer.Push(id);
      ASSERT_EQ(ToUtf8(piece), piece);
      text += piece;
    }
    text += detokenizer.Finish();
    ASSERT_EQ(text, tokenizer.Decode(ids));
  }
}

int32_t Byte(int byte) { return 3 + byte; }

Tokenizer TinyFallback() {
  return Tokenizer::Parse(TinyFallbackTokenizerJson().dump()).value();
}

TEST(DetokenizerTest, FallbackBytesWaitForTheEndOfTheirRun) {
  const Tokenizer tokenizer = TinyFallback();
  Detokenizer detokenizer(&tokenizer);
  EXPECT_EQ(detokenizer.Push(Byte(0xC3)), "");
  EXPECT_EQ(detokenizer.Push(1), "");  // <s>, which is no text
  EXPECT_EQ(detokenizer.Push(Byte(0xA9)), "");
  EXPECT_EQ(detokenizer.Push(263), "\u00E9a");
  EXPECT_EQ(detokenizer.Push(Byte('x')), "");
  EXPECT_EQ(detokenizer.Finish(), "x");
}

// A token that shows only later whether those before it were a character.
TEST(DetokenizerTest, ABadRunOfFallbackBytesIsReplacedByteByByte) {
  const Tokenizer tokenizer = TinyFallback();
  Detokenizer detokenizer(&tokenizer);
  std::string text;
  for (const int byte : {0xC3, 0xA9, 0xFF}) {
    text += detokenizer.Push(Byte(byte));
  }
  EXPECT_EQ(text + detokenizer.Push(263), "\uFFFD\uFFFD\uFFFDa");
}

TEST(DetokenizerTest, OneSpaceGoesFromTheStartOfTheTextOnly) {
  const Tokenizer tokenizer = TinyFallback();
  Detokenizer detokenizer(&tokenizer);
  EXPECT_EQ(detokenizer.Push(1), "");
  EXPECT_EQ(detokenizer.Push(-1), "");
  EXPECT_EQ(detokenizer.Push(266), "the");
  EXPECT_EQ(detokenizer.Push(266), " the");
  EXPECT_EQ(tokenizer.Decode({259, 266}), " the");
  EXPECT_EQ(tokenizer.Decode({Byte(' '), 263}), "a");
  EXPECT_EQ(tokenizer.Decode({1, 266}, /*keep_special=*/true), "<s> the");
}

}  // namespace
}  // namespace headcount
