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
