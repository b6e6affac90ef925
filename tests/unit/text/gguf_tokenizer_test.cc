#include "text/gguf_tokenizer.h"

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/format/temp_folder.h"
#include "tests/unit/text/tokenizer_golden.h"
#include "text/tokenizer.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

constexpr int kNormal = 1;
constexpr int kUnknown = 2;
constexpr int kControl = 3;
constexpr int kUserDefined = 4;
constexpr int kUnused = 5;

// The keys of a tokenizer, to be changed and written.
struct Keys {
  std::string model;
  std::string pre;  // empty: no such key
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<std::string> merges;
  std::vector<float> scores;
  std::map<std::string, bool> flags;
  std::map<std::string, uint32_t> ids;

  std::string File() const {
    GgufWriter writer;
    writer.AddString("tokenizer.ggml.model", model);
    if (!pre.empty()) writer.AddString("tokenizer.ggml.pre", pre);
    writer.AddStrings("tokenizer.ggml.tokens", tokens);
    writer.AddInts("tokenizer.ggml.token_type", types);
    if (model == "gpt2") writer.AddStrings("tokenizer.ggml.merges", merges);
    if (model == "llama") {
      std::string elements;
      for (const float score : scores) elements += Bytes(score);
      writer.AddKey(GgufArrayKey("tokenizer.ggml.scores", kGgufFloat32,
                                 scores.size(), elements));
    }
    for (const auto& [name, value] : flags) {
      writer.AddBool("tokenizer.ggml." + name, value);
    }
    for (const auto& [name, value] : ids) {
      writer.AddInt("tokenizer.ggml." + name, value);
    }
    return writer.File();
  }

  void Add(const std::string& token, int type, float score = 0) {
    tokens.push_back(token);
    types.push_back(type);
    scores.push_back(score);
  }
};

absl::StatusOr<Tokenizer> Read(const Keys& keys) {
  const TempFolder folder;
  return Tokenizer::Load(folder.Write("model.gguf", keys.File()));
}

// What a converter makes of a tokenizer.json.
Keys KeysOf(const Json& json, const std::string& pre) {
  Keys keys;
  keys.model = "gpt2";
  keys.pre = pre;
  const auto at = [&keys](size_t id) {
    if (id >= keys.tokens.size()) {
      keys.tokens.resize(id + 1);
      keys.types.resize(id + 1, kUnused);
    }
    return id;
  };
  for (const auto& [token, id] : json["model"]["vocab"].items()) {
    keys.tokens[at(id.get<size_t>())] = token;
    keys.types[id.get<size_t>()] = kNormal;
  }
  for (const Json& added : json["added_tokens"]) {
    const size_t id = at(added["id"].get<size_t>());
    keys.tokens[id] = added["content"].get<std::string>();
    keys.types[id] = added["special"].get<bool>() ? kControl : kUserDefined;
  }
  for (const Json& merge : json["model"]["merges"]) {
    keys.merges.push_back(merge.is_string()
                              ? merge.get<std::string>()
                              : merge[0].get<std::string>() + " " +
                                    merge[1].get<std::string>());
  }
  return keys;
}

// <unk>, <s>, </s>, the bytes, "▁", "a", "b", "c", and what they make.
Keys SentencePieceKeys() {
  Keys keys;
  keys.model = "llama";
  keys.Add("<unk>", kUnknown);
  keys.Add("<s>", kControl);
  keys.Add("</s>", kControl);
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char kDigits[] = "0123456789ABCDEF";
    keys.Add(std::string("<0x") + kDigits[byte / 16] + kDigits[byte % 16] + ">",
             /*type=*/6);
  }
  keys.Add("\u2581", kNormal, -10);  // 259
  keys.Add("a", kNormal, -11);       // 260
  keys.Add("b", kNormal, -12);
  keys.Add("c", kNormal, -13);
  keys.Add("bc", kNormal, -1);  // 263
  keys.Add("ab", kNormal, -2);  // 264
  keys.Add("abc", kNormal, -3);
  keys.ids["bos_token_id"] = 1;
  keys.ids["eos_token_id"] = 2;
  return keys;
}

class GgufByteLevelTest
    : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(GgufByteLevelTest, GivesTheIdsOfTheTokenizerJsonItCameFrom) {
  const auto [name, pre] = GetParam();
  const Json json = Json::parse(
      ReadTokenizerGolden(std::string(name) + ".tokenizer.json.gz"));
  Keys keys = KeysOf(json, pre);
  // Llama 3's converter leaves the flag out.
  if (const Json& post = json["post_processor"];
      post.contains("single") || post.contains("processors")) {
    keys.ids["bos_token_id"] = Tokenizer::Parse(json.dump())->prefix()[0];
  }
  const auto tokenizer = Read(keys);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectGolden(*tokenizer, name);
}

INSTANTIATE_TEST_SUITE_P(
    All, GgufByteLevelTest,
    testing::Values(std::pair("gpt2", "gpt-2"), std::pair("gpt2", "default"),
                    std::pair("llama3", "llama-bpe"),
                    std::pair("qwen2", "qwen2"),
                    std::pair("smollm2_style", "smollm")),
    [](const auto& param) {
      return std::string(param.param.first) +
             (std::string(param.param.second) == "default" ? "_default" : "");
    });

TEST(GgufTokenizerTest, ScoresMergeAsInSentencePiece) {
  const Json golden = ReadGoldenLines("sentencepiece").front();
  Keys keys;
  keys.model = "llama";
  keys.tokens = golden.at("tokens").get<std::vector<std::string>>();
  keys.scores = golden.at("scores").get<std::vector<float>>();
  keys.types = golden.at("types").get<std::vector<int32_t>>();
  keys.ids["bos_token_id"] = 1;
  const auto tokenizer = Read(keys);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectGolden(*tokenizer, "sentencepiece");
}

TEST(GgufTokenizerTest, SmolLm2GivesTheIdsOfTheReference) {
  const char* path = std::getenv("HEADCOUNT_SMOLLM2");
  const std::string model =
      path != nullptr ? path : HEADCOUNT_SOURCE_DIR "/models/smollm2-135m";
  if (!std::filesystem::exists(model)) {
    GTEST_SKIP() << model << " is not here: scripts/fetch_model.sh "
                 << "smollm2-135m brings it, HEADCOUNT_SMOLLM2 names another "
                 << "place";
  }
  const auto tokenizer = Tokenizer::Load(model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectGolden(*tokenizer, "smollm2-135m");
}

TEST(GgufTokenizerTest, TheTokenWithTheHighestScoreIsMadeFirst) {
  Keys keys = SentencePieceKeys();
  keys.flags["add_space_prefix"] = false;
  auto tokenizer = Read(keys);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->Encode("abc"), ElementsAre(265));
  EXPECT_THAT(tokenizer->Encode("abab"), ElementsAre(264, 264));
  EXPECT_THAT(tokenizer->Encode("abcbc"), ElementsAre(265, 263));

  keys.scores[264] = keys.scores[263];  // equal: the leftmost pair
  keys.types[265] = kUnused;            // and no "abc"
  tokenizer = Read(keys);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->Encode("abc"), ElementsAre(264, 262));
}

TEST(GgufTokenizerTest, FlagsSayWhatGoesAroundAText) {
  Keys keys = SentencePieceKeys();
  auto tokenizer = Read(keys);  // the defaults of llama.cpp
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->prefix(), ElementsAre(1));
  EXPECT_THAT(tokenizer->suffix(), IsEmpty());
  EXPECT_THAT(tokenizer->Encode("a"), ElementsAre(259, 260));
  EXPECT_EQ(tokenizer->Decode({259, 260}), "a");

  keys.flags = {{"add_space_prefix", false},
                {"add_bos_token", false},
                {"add_eos_token", true}};
  tokenizer = Read(keys);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->prefix(), IsEmpty());
  EXPECT_THAT(tokenizer->suffix(), ElementsAre(2));
  EXPECT_THAT(tokenizer->Encode("a"), ElementsAre(260));
  EXPECT_EQ(tokenizer->Decode({259, 260}), " a");
}

TEST(GgufTokenizerTest, TypesSayWhichTokensAreFoundInText) {
  Keys keys = SentencePieceKeys();
  keys.Add("<tool>", kUserDefined);  // 266
  keys.Add("<end>", kControl);
  keys.Add("", kNormal);
  keys.Add("[PAD]", kUnused);
  const auto tokenizer = Read(keys);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->Encode("a<tool>b"),
              ElementsAre(259, 260, 266, 259, 261));
  EXPECT_FALSE(tokenizer->is_special(266));
  EXPECT_TRUE(tokenizer->is_special(267));
  EXPECT_TRUE(tokenizer->is_special(0));
  for (const int32_t id : tokenizer->Encode("<end><s><unk>")) {
    EXPECT_FALSE(tokenizer->is_special(id)) << id;
  }
  EXPECT_EQ(tokenizer->Decode({266, 268, 269}), "<tool>");
}

TEST(GgufTokenizerTest, LoadsADirectoryWithOneFile) {
  const TempFolder folder;
  folder.Write("a.gguf", SentencePieceKeys().File());
  const auto tokenizer = Tokenizer::Load(folder.path().string());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(tokenizer->Encode("abc"), ElementsAre(259, 265));
}

// Keys with something wrong, and what the error must say.
struct BadKeys {
  const char* what;
  std::function<void(Keys&)> spoil;
  std::string message;
};

void ExpectRefused(const Keys& good, const std::vector<BadKeys>& table) {
  ASSERT_TRUE(Read(good).ok()) << Read(good).status();
  for (const BadKeys& bad : table) {
    Keys keys = good;
    bad.spoil(keys);
    const std::string message(Read(keys).status().message());
    EXPECT_THAT(message, HasSubstr("model.gguf: ")) << bad.what;
    EXPECT_THAT(message, HasSubstr(bad.message)) << bad.what;
  }
}

TEST(GgufTokenizerTest, SentencePieceKeysThatCannotBeReadAreNamed) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ExpectRefused(
      SentencePieceKeys(),
      {
          {"other kind", [](Keys& k) { k.model = "bert"; },
           "tokenizer.ggml.model: 'bert' is not supported"},
          {"no token", [](Keys& k) { k.tokens.clear(); },
           "tokenizer.ggml.token_type: 266 entries for 0 tokens"},
          {"fewer types", [](Keys& k) { k.types.pop_back(); },
           "tokenizer.ggml.token_type: 265 entries for 266 tokens"},
          {"type 0", [](Keys& k) { k.types[7] = 0; },
           "tokenizer.ggml.token_type[7]: 0 is no type"},
          {"type 7", [](Keys& k) { k.types[7] = 7; },
           "tokenizer.ggml.token_type[7]: 7 is no type"},
          {"fewer scores", [](Keys& k) { k.scores.pop_back(); },
           "tokenizer.ggml.scores: 265 entries for 266 tokens"},
          {"a score that is none", [=](Keys& k) { k.scores[260] = nan; },
           "tokenizer.ggml.scores[260]: is not a number"},
          {"a token twice", [](Keys& k) { k.tokens[265] = "ab"; },
           "tokenizer.ggml.tokens[265]: \"ab\" is a token twice"},
          {"no UTF-8", [](Keys& k) { k.tokens[265] = "a\xFF"; },
           R"(tokenizer.ggml.tokens[265]: 'a\xff' is not UTF-8)"},
          {"a long token", [](Keys& k) { k.tokens[265].assign(257, 'a'); },
           "tokenizer.ggml.tokens[265]: has 257 bytes"},
          {"no byte", [](Keys& k) { k.tokens[3 + 'A'] = "x"; },
           "tokenizer.ggml.tokens: has no <0x41>"},
          {"a special byte", [](Keys& k) { k.types[3 + 'A'] = kControl; },
           "tokenizer.ggml.token_type: the special token \"<0x41>\""},
          {"a special letter", [](Keys& k) { k.types[260] = kControl; },
           "tokenizer.ggml.token_type: the special token \"a\""},
          {"bos missing", [](Keys& k) { k.ids.erase("bos_token_id"); },
           "has no key 'tokenizer.ggml.bos_token_id'"},
          {"bos too large", [](Keys& k) { k.ids["bos_token_id"] = 266; },
           "tokenizer.ggml.bos_token_id: 266 is not that of a token"},
          {"bos 2^32 - 1", [](Keys& k) { k.ids["bos_token_id"] = ~0u; },
           "tokenizer.ggml.bos_token_id: 4294967295 is not"},
          {"bos unused",
           [](Keys& k) {
             k.ids["bos_token_id"] = 265;
             k.types[265] = kUnused;
           },
           "id 265 is not that of a token"},
      });
}

TEST(GgufTokenizerTest, ByteLevelKeysThatCannotBeReadAreNamed) {
  Keys good = KeysOf(Json::parse(ReadTokenizerGolden("gpt2.tokenizer.json.gz")),
                     "gpt-2");
  ExpectRefused(
      good,
      {
          {"no rule", [](Keys& k) { k.pre.clear(); },
           "has no key 'tokenizer.ggml.pre'"},
          {"other rule", [](Keys& k) { k.pre = "tekken"; },
           "tokenizer.ggml.pre: 'tekken' is not supported; default, gpt-2"},
          {"a merge of one", [](Keys& k) { k.merges[5] = "ab"; },
           "tokenizer.ggml.merges[5]: \"ab\" is not two tokens"},
          {"a merge of none", [](Keys& k) { k.merges[5] = "a \u0120\u0120q"; },
           "tokenizer.ggml.merges[5]: \"\u0120\u0120q\" is not in the"},
          {"a prefix space",
           [](Keys& k) { k.flags["add_space_prefix"] = true; },
           "tokenizer.ggml.add_space_prefix: true is not supported"},
          {"no bos", [](Keys& k) { k.flags["add_bos_token"] = true; },
           "has no key 'tokenizer.ggml.bos_token_id'"},
      });
}

TEST(GgufTokenizerTest, KeysOfOtherTypesAreNamed) {
  const TempFolder folder;
  GgufWriter none;
  EXPECT_EQ(Tokenizer::Load(folder.Write("none.gguf", none.File())).status(),
            absl::NotFoundError((folder.path() / "none.gguf").string() +
                                ": has no key 'tokenizer.ggml.model'"));
  GgufWriter number;
  number.AddInt("tokenizer.ggml.model", 1);
  EXPECT_THAT(
      std::string(Tokenizer::Load(folder.Write("number.gguf", number.File()))
                      .status()
                      .message()),
      HasSubstr("key 'tokenizer.ggml.model' is one integer, not a string"));
}

}  // namespace
}  // namespace headcount
