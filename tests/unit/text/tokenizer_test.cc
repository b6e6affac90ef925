#include "text/tokenizer.h"

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/text/tiny_tokenizer.h"
#include "text/unicode.h"

namespace headcount {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;

constexpr int32_t kThe = 257;
constexpr int32_t kSpaceThe = 259;
constexpr int32_t kBos = 261;
constexpr int32_t kEos = 262;

Tokenizer Make(const nlohmann::json& json) {
  return Tokenizer::Parse(json.dump()).value();
}

nlohmann::json AddedToken(const std::string& content, int id) {
  return {{"content", content},
          {"id", id},
          {"special", false},
          {"normalized", false}};
}

TEST(TokenizerTest, MergesInsidePiecesOnly) {
  const Tokenizer tokenizer = Make(TinyTokenizerJson());
  EXPECT_THAT(tokenizer.Encode(""), IsEmpty());
  EXPECT_THAT(tokenizer.Encode("the the"), ElementsAre(kThe, kSpaceThe));
  EXPECT_THAT(tokenizer.Encode("th\ne"), ElementsAre(256, '\n', 'e'));
}

TEST(TokenizerTest, KnowsItsSpecialTokens) {
  const Tokenizer tokenizer = Make(TinyTokenizerJson());
  EXPECT_THAT(tokenizer.prefix(), ElementsAre(kBos));
  EXPECT_THAT(tokenizer.suffix(), IsEmpty());
  EXPECT_EQ(tokenizer.SpecialId("<|eos|>"), kEos);
  EXPECT_EQ(tokenizer.SpecialId("the"), std::nullopt);
  EXPECT_THAT(tokenizer.specials(),
              ElementsAre(Pair("<|bos|>", kBos), Pair("<|eos|>", kEos)));
  EXPECT_TRUE(tokenizer.is_special(kBos));
  EXPECT_FALSE(tokenizer.is_special(kThe));
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_FALSE(tokenizer.is_special(1 << 30));
  EXPECT_EQ(tokenizer.vocab_size(), 263);
}

TEST(TokenizerTest, ASpecialTokenInTextIsText) {
  nlohmann::json json = TinyTokenizerJson();
  // A piece that spells a special token: not even ignore_merges finds it.
  json["model"]["ignore_merges"] = true;
  json["model"]["vocab"]["secret"] = 263;
  json["added_tokens"].push_back(AddedToken("secret", 263));
  json["added_tokens"].back()["special"] = true;
  const Tokenizer tokenizer = Make(json);
  for (const std::string text : {"<|bos|>", "x<|eos|>y", "secret"}) {
    const std::vector<int32_t> ids = tokenizer.Encode(text);
    EXPECT_EQ(tokenizer.Decode(ids), text);
    for (const int32_t id : ids) EXPECT_FALSE(tokenizer.is_special(id));
  }
}

TEST(TokenizerTest, DecodeLeavesSpecialTokensOutUnlessAsked) {
  const Tokenizer tokenizer = Make(TinyTokenizerJson());
  const std::vector<int32_t> ids = {kBos, kThe, -1, 9999, kSpaceThe, kEos};
  EXPECT_EQ(tokenizer.Decode(ids), "the the");
  EXPECT_EQ(tokenizer.Decode(ids, /*keep_special=*/true),
            "<|bos|>the the<|eos|>");
  EXPECT_EQ(tokenizer.TokenBytes(kSpaceThe), " the");
  EXPECT_EQ(tokenizer.TokenBytes(9999), "");
}

TEST(TokenizerTest, IgnoreMergesTakesAPieceThatIsAToken) {
  nlohmann::json json = TinyTokenizerJson();
  json["model"]["vocab"]["whole"] = 263;  // no merges lead to it
  EXPECT_THAT(Make(json).Encode("whole"), ElementsAre('w', 'h', 'o', 'l', 'e'));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(Make(json).Encode("whole"), ElementsAre(263));
  EXPECT_THAT(Make(json).Encode("wholes"),
              ElementsAre('w', 'h', 'o', 'l', 'e', 's'));
}

TEST(TokenizerTest, AddedTokensThatAreNotSpecialAreFoundInText) {
  nlohmann::json json = TinyTokenizerJson();
  json["added_tokens"].push_back(AddedToken("<tool>", 263));
  json["added_tokens"].push_back(AddedToken("<tool>s", 264));
  const Tokenizer tokenizer = Make(json);
  EXPECT_THAT(tokenizer.Encode("the<tool>the<tool>s"),
              ElementsAre(kThe, 263, kThe, 264));
  EXPECT_THAT(tokenizer.Encode("<tool"), ElementsAre('<', 't', 'o', 'o', 'l'));
  EXPECT_EQ(tokenizer.Decode({kThe, 263}), "the<tool>");
}

TEST(TokenizerTest, NormalizedAddedTokensAreFoundInNormalizedText) {
  nlohmann::json json = TinyTokenizerJson();
  json["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", {{{"type", "NFC"}}}}};
  json["added_tokens"].push_back(AddedToken("\u00E9!", 263));
  EXPECT_THAT(Make(json).Encode("e\u0301!"), ElementsAre(0xC3, 0xA9, '!'));
  json["added_tokens"].back()["normalized"] = true;
  EXPECT_THAT(Make(json).Encode("e\u0301!"), ElementsAre(263));
}

TEST(TokenizerTest, InvalidUtf8IsReadAsReplacementCharacters) {
  const Tokenizer tokenizer = Make(TinyTokenizerJson());
  EXPECT_EQ(tokenizer.Encode("a\xFF"), tokenizer.Encode("a\uFFFD"));
  EXPECT_EQ(tokenizer.Encode("\xF0\x9F"), tokenizer.Encode("\uFFFD"));
}

TEST(TokenizerTest, BytesThatTheVocabularyLacksAreLost) {
  nlohmann::json json = TinyTokenizerJson();
  json["model"]["vocab"].erase("z");
  EXPECT_THAT(Make(json).Encode("tzhz"), ElementsAre(256));
}

TEST(TokenizerTest, DecodeOfEncodeIsTheText) {
  const Tokenizer tokenizer = Make(TinyTokenizerJson());
  std::mt19937 random(4);
  for (int round = 0; round < 5000; ++round) {
    std::string bytes;
    for (size_t i = random() % 40; i > 0; --i) {
      bytes.push_back(static_cast<char>(random() % 3 == 0 ? random() % 256
                                                          : random() % 128));
    }
    ASSERT_EQ(tokenizer.Decode(tokenizer.Encode(bytes)), ToUtf8(bytes));
  }
}

TEST(TokenizerTest, BytesOfAVocabularyThatLacksThemAreLeftOut) {
  nlohmann::json json = TinyTokenizerJson();
  json["model"]["vocab"].erase("-");
  EXPECT_THAT(Make(json).Encode("-aa-"), ElementsAre(260));
}

TEST(TokenizerTest, CharactersWithoutATokenFallBackToTheirBytes) {
  const Tokenizer tokenizer = Make(TinyFallbackTokenizerJson());
  EXPECT_THAT(tokenizer.Encode(""), IsEmpty());
  EXPECT_THAT(tokenizer.Encode("the a"), ElementsAre(266, 259, 263));
  EXPECT_THAT(tokenizer.Encode("\u00E9<s>"),
              ElementsAre(259, 3 + 0xC3, 3 + 0xA9, 3 + '<', 3 + 's', 3 + '>'));
  EXPECT_TRUE(tokenizer.is_fallback_byte(3));
  EXPECT_FALSE(tokenizer.is_fallback_byte(259));
  EXPECT_FALSE(tokenizer.is_fallback_byte(-1));
  EXPECT_EQ(tokenizer.TokenBytes(266), " the");
}

TEST(TokenizerTest, ASpaceIsAddedWhereTheTokenizerSaysSo) {
  nlohmann::json json = TinyFallbackTokenizerJson();
  json["added_tokens"].push_back(AddedToken("<u>", 267));
  const std::vector<int32_t> with_space = {264, 267, 259, 263};
  const std::vector<int32_t> first_only = {264, 267, 263};
  const std::vector<int32_t> none = {260, 267, 263};

  const Tokenizer prepend = Make(json);
  EXPECT_EQ(prepend.Encode("t<u>a"), with_space);
  EXPECT_EQ(prepend.Encode("t<u>a", TextPlace::kAfterToken), with_space);
  EXPECT_EQ(prepend.Encode("t", TextPlace::kAfterText),
            std::vector<int32_t>{260});
  EXPECT_THAT(prepend.Encode(" t"), ElementsAre(259, 264));

  json["normalizer"] = nullptr;
  json["pre_tokenizer"] = {{"type", "Metaspace"},
                           {"replacement", "\u2581"},
                           {"prepend_scheme", "first"},
                           {"split", false}};
  const Tokenizer first = Make(json);
  EXPECT_EQ(first.Encode("t<u>a"), first_only);
  EXPECT_EQ(first.Encode(" t<u>a"), first_only);  // has its space
  EXPECT_EQ(first.Encode("t<u>a", TextPlace::kAfterToken), none);
  json["pre_tokenizer"]["prepend_scheme"] = "never";
  EXPECT_EQ(Make(json).Encode("t<u>a"), none);
  json["pre_tokenizer"]["prepend_scheme"] = "always";
  EXPECT_EQ(Make(json).Encode("t<u>a"), with_space);
}

// Without pre-tokenization the whole text is one piece.
TEST(TokenizerTest, AMebibyteOfOneLetterIsEncoded) {
  const Tokenizer tokenizer = Make(TinyFallbackTokenizerJson());
  EXPECT_EQ(tokenizer.Encode(std::string(1 << 20, 'a')).size(), (1 << 20) + 1);
  EXPECT_EQ(tokenizer.Encode(std::string(1 << 20, ' ')).size(), (1 << 20) + 1);
}

TEST(TokenizerTest, LoadsTheDefaultModel) {
  const auto tokenizer =
      Tokenizer::Load(HEADCOUNT_SOURCE_DIR "/models/mailroom");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->Encode("spam"), ElementsAre(364));
  EXPECT_THAT(tokenizer->Encode("ham"), ElementsAre(370));
  EXPECT_EQ(tokenizer->SpecialId("<|bos|>"), 0);
  EXPECT_EQ(tokenizer->SpecialId("<|label|>"), 2);
  EXPECT_THAT(tokenizer->prefix(), ElementsAre(0));
  EXPECT_EQ(tokenizer->vocab_size(), 2048);
}

TEST(TokenizerTest, LoadOfAnEmptyDirectoryIsNotFound) {
  EXPECT_EQ(Tokenizer::Load(HEADCOUNT_SOURCE_DIR "/src/text").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace headcount
