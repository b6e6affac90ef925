#include "text/tokenizer_spec.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/text/tiny_tokenizer.h"
#include "text/tokenizer.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

// A tokenizer.json with something wrong, and what the error must say.
struct BadFile {
  const char* what;
  std::function<void(Json&)> spoil;
  std::string message;
};

void ExpectRefused(const std::vector<BadFile>& table) {
  for (const BadFile& bad : table) {
    Json json = TinyTokenizerJson();
    bad.spoil(json);
    const auto tokenizer = Tokenizer::Parse(json.dump());
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument)
        << bad.what;
    EXPECT_THAT(std::string(tokenizer.status().message()),
                HasSubstr(bad.message))
        << bad.what;
  }
}

TEST(TokenizerSpecTest, ModelsThatCannotBeReadNameTheField) {
  ExpectRefused({
      {"no object", [](Json& j) { j = Json::array(); }, "model: is missing"},
      {"no model", [](Json& j) { j.erase("model"); }, "model: is missing"},
      {"model a string", [](Json& j) { j["model"] = "BPE"; },
       "model: is \"BPE\", not an object"},
      {"other model", [](Json& j) { j["model"]["type"] = "Unigram"; },
       "model.type: \"Unigram\" is not supported"},
      {"model type a number", [](Json& j) { j["model"]["type"] = 3; },
       "model.type: 3"},
      {"byte fallback", [](Json& j) { j["model"]["byte_fallback"] = true; },
       "pre_tokenizer.type: \"ByteLevel\" is not supported here"},
      {"byte fallback a string",
       [](Json& j) { j["model"]["byte_fallback"] = "no"; },
       "model.byte_fallback: is \"no\", not true or false"},
      {"prefix of subwords",
       [](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; },
       "model.continuing_subword_prefix: \"##\""},
      {"suffix of words",
       [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; },
       "model.end_of_word_suffix: \"</w>\""},
      {"dropout", [](Json& j) { j["model"]["dropout"] = 0.1; },
       "model.dropout: 0.1"},
      {"dropout a string", [](Json& j) { j["model"]["dropout"] = "0"; },
       "model.dropout: \"0\""},
      {"ignore_merges a number",
       [](Json& j) { j["model"]["ignore_merges"] = 1; },
       "model.ignore_merges: is 1"},
      {"unknown token that could be used",
       [](Json& j) {
         j["model"]["unk_token"] = "<unk>";
         j["model"]["vocab"].erase("z");
       },
       "model.unk_token: \"<unk>\" is not supported, since model.vocab lacks "
       "byte 122"},
  });
}

TEST(TokenizerSpecTest, VocabulariesThatCannotBeReadNameTheEntry) {
  const auto vocab = [](Json& j) -> Json& { return j["model"]["vocab"]; };
  const std::string range = ", not a number from 0 to 999999";
  ExpectRefused({
      {"none", [&](Json& j) { j["model"].erase("vocab"); },
       "model.vocab: is missing"},
      {"an array", [&](Json& j) { vocab(j) = Json::array(); },
       "model.vocab: is an array, not an object"},
      {"id a string", [&](Json& j) { vocab(j)["the"] = "257"; },
       "model.vocab[\"the\"]: is \"257\"" + range},
      {"id a fraction", [&](Json& j) { vocab(j)["the"] = 257.0; },
       "model.vocab[\"the\"]: is 257.0" + range},
      {"id null", [&](Json& j) { vocab(j)["the"] = nullptr; },
       "model.vocab[\"the\"]: is null" + range},
      {"id an object", [&](Json& j) { vocab(j)["the"] = Json::object(); },
       "model.vocab[\"the\"]: is an object" + range},
      {"negative id", [&](Json& j) { vocab(j)["the"] = -1; },
       "model.vocab[\"the\"]: is -1" + range},
      {"id 1,000,000", [&](Json& j) { vocab(j)["the"] = 1'000'000; },
       "model.vocab[\"the\"]: is 1000000" + range},
      {"id 2^31", [&](Json& j) { vocab(j)["the"] = int64_t{1} << 31; },
       "model.vocab[\"the\"]: is 2147483648" + range},
      {"id 2^32 + 5",
       [&](Json& j) { vocab(j)["the"] = (int64_t{1} << 32) + 5; },
       "model.vocab[\"the\"]: is 4294967301" + range},
      {"id 2^64 - 1", [&](Json& j) { vocab(j)["the"] = ~uint64_t{0}; },
       "model.vocab[\"the\"]: is 18446744073709551615" + range},
      {"an id twice", [&](Json& j) { vocab(j)["the"] = 256; },
       "is 256, the id of another token too"},
  });
}

TEST(TokenizerSpecTest, MergesThatCannotBeReadNameTheEntry) {
  const auto merges = [](Json& j) -> Json& { return j["model"]["merges"]; };
  ExpectRefused({
      {"none", [&](Json& j) { j["model"].erase("merges"); },
       "model.merges: is missing"},
      {"an object", [&](Json& j) { merges(j) = Json::object(); },
       "model.merges: is an object, not an array"},
      {"one token", [&](Json& j) { merges(j)[1] = "the"; },
       "model.merges[1]: \"the\" is not two tokens"},
      {"three tokens", [&](Json& j) { merges(j)[1] = "t h e"; },
       "model.merges[1]: \"t h e\" is not two tokens"},
      {"three in an array",
       [&](Json& j) {
         merges(j)[1] = {"t", "h", "e"};
       },
       "model.merges[1]: is an array"},
      {"numbers",
       [&](Json& j) {
         merges(j)[1] = {1, 2};
       },
       "model.merges[1]: is an array"},
      {"null", [&](Json& j) { merges(j)[1] = nullptr; },
       "model.merges[1]: is null"},
      {"unknown left",
       [&](Json& j) {
         merges(j)[0] = {"tt", "h"};
       },
       "model.merges[0]: \"tt\" is not in the vocabulary"},
      {"unknown right", [&](Json& j) { merges(j)[0] = "t hh"; },
       "model.merges[0]: \"hh\" is not in the vocabulary"},
      {"unknown result", [&](Json& j) { merges(j)[0] = "h t"; },
       "model.merges[0]: \"ht\" is not in the vocabulary"},
      {"a special result",
       [](Json& j) {
         j["added_tokens"].push_back(
             {{"content", "the"}, {"id", 257}, {"special", true}});
       },
       "model.merges[1]: makes the special token \"the\""},
  });
}

TEST(TokenizerSpecTest, AddedTokensThatCannotBeReadNameTheEntry) {
  const auto added = [](Json& j) -> Json& { return j["added_tokens"]; };
  const auto plain = [](const char* option) {
    return Json{{"content", "<x>"}, {"id", 300}, {option, true}};
  };
  ExpectRefused({
      {"an object", [&](Json& j) { added(j) = Json::object(); },
       "added_tokens: is an object, not an array"},
      {"an entry is a string", [&](Json& j) { added(j)[1] = "<|eos|>"; },
       "added_tokens[1].content: is missing"},
      {"no content", [&](Json& j) { added(j)[1].erase("content"); },
       "added_tokens[1].content: is missing"},
      {"empty content", [&](Json& j) { added(j)[1]["content"] = ""; },
       "added_tokens[1].content: is empty"},
      {"no id", [&](Json& j) { added(j)[1].erase("id"); },
       "added_tokens[1].id: is null"},
      {"id 2^31", [&](Json& j) { added(j)[1]["id"] = int64_t{1} << 31; },
       "added_tokens[1].id: is 2147483648"},
      {"id of a vocabulary entry", [&](Json& j) { added(j)[1]["id"] = 5; },
       "added_tokens[1].id: is 5, which the vocabulary or another added token"},
      {"id of another", [&](Json& j) { added(j)[1]["id"] = 261; },
       "added_tokens[1].id: is 261"},
      {"id unlike the vocabulary's",
       [&](Json& j) { j["model"]["vocab"]["<|eos|>"] = 270; },
       "added_tokens[1].id: is 262"},
      {"twice", [&](Json& j) { added(j)[1]["content"] = "<|bos|>"; },
       "added_tokens[1].content: \"<|bos|>\" is added twice"},
      {"special a string", [&](Json& j) { added(j)[0]["special"] = "yes"; },
       "added_tokens[0].special: is \"yes\""},
      {"normalized a number", [&](Json& j) { added(j)[0]["normalized"] = 0; },
       "added_tokens[0].normalized: is 0"},
      {"strips", [&](Json& j) { added(j).push_back(plain("lstrip")); },
       "added_tokens[2].lstrip: true is supported for special"},
      {"strips right", [&](Json& j) { added(j).push_back(plain("rstrip")); },
       "added_tokens[2].rstrip: true is supported for special"},
      {"single word",
       [&](Json& j) { added(j).push_back(plain("single_word")); },
       "added_tokens[2].single_word: true is supported for special"},
      {"a byte's token",
       [&](Json& j) {
         added(j).push_back({{"content", "!"}, {"id", 33}, {"special", true}});
       },
       "added_tokens: the special token \"!\" is also that of byte 33"},
  });
}

TEST(TokenizerSpecTest, PipelinesAreCheckedToo) {
  ExpectRefused({
      {"no pre-tokenizer", [](Json& j) { j.erase("pre_tokenizer"); },
       "pre_tokenizer: does not end with ByteLevel"},
      {"a template with an id of no token",
       [](Json& j) {
         j["post_processor"]["special_tokens"]["<|bos|>"]["ids"][0] = 300;
       },
       "post_processor: id 300 is not that of a token"},
  });
}

TEST(TokenizerSpecTest, ByteFallbackNeedsAllBytesAndNoSpecialLetter) {
  const auto vocab = [](Json& j) -> Json& { return j["model"]["vocab"]; };
  const std::vector<BadFile> table = {
      {"a byte lacks", [&](Json& j) { vocab(j).erase("<0x7A>"); },
       "model.vocab: lacks <0x7A>, which byte_fallback needs"},
      {"a special byte",
       [&](Json& j) {
         j["added_tokens"][0] = {
             {"content", "<0x41>"}, {"id", 3 + 0x41}, {"special", true}};
       },
       "added_tokens: the special token \"<0x41>\" is also that of byte 65"},
      {"a special letter",
       [&](Json& j) {
         j["added_tokens"][0] = {
             {"content", "a"}, {"id", 263}, {"special", true}};
       },
       "added_tokens: the special token \"a\" is one character"},
      {"a special merge",
       [&](Json& j) {
         j["added_tokens"][0] = {
             {"content", "he"}, {"id", 265}, {"special", true}};
       },
       "model.merges[1]: makes the special token \"he\""},
  };
  for (const BadFile& bad : table) {
    Json json = TinyFallbackTokenizerJson();
    bad.spoil(json);
    EXPECT_THAT(std::string(Tokenizer::Parse(json.dump()).status().message()),
                HasSubstr(bad.message))
        << bad.what;
  }
  Json json = TinyFallbackTokenizerJson();
  vocab(json).erase("<0xFF>");  // not in UTF-8
  EXPECT_TRUE(Tokenizer::Parse(json.dump()).ok());
}

TEST(TokenizerSpecTest, TextThatIsNoJsonIsRefused) {
  const std::string good = TinyTokenizerJson().dump();
  for (size_t size = 0; size < good.size(); size += 1 + good.size() / 97) {
    EXPECT_EQ(Tokenizer::Parse(good.substr(0, size)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << size;
  }
  for (const char open : {'[', '{'}) {
    EXPECT_FALSE(Tokenizer::Parse(std::string(100'000, open)).ok());
  }
  std::string twice = good;
  twice.replace(twice.find("\"the\":257"), 9, "\"th\":257");
  EXPECT_FALSE(Tokenizer::Parse(twice).ok());
}

TEST(TokenizerSpecTest, SizesAreLimited) {
  Json json = TinyTokenizerJson();
  Json& vocab = json["model"]["vocab"];
  for (int i = 0; i <= kMaxVocabulary; ++i) vocab[absl::StrCat("t", i)] = i;
  EXPECT_THAT(std::string(ReadTokenizerSpec(json).status().message()),
              HasSubstr("model.vocab: 1000262 entries; at most 1000000"));

  json = TinyTokenizerJson();
  json["model"]["merges"] = Json::array_t(size_t{kMaxMerges} + 1);
  EXPECT_THAT(std::string(ReadTokenizerSpec(json).status().message()),
              HasSubstr("model.merges: 2000001 entries; at most 2000000"));
}

TEST(TokenizerSpecTest, WhatCannotChangeIdsIsAccepted) {
  const std::vector<BadFile> table = {
      {"old file without a type", [](Json& j) { j["model"].erase("type"); },
       ""},
      {"empty affixes",
       [](Json& j) { j["model"]["continuing_subword_prefix"] = ""; }, ""},
      {"no dropout", [](Json& j) { j["model"]["dropout"] = 0.0; }, ""},
      {"an unknown token that is never used",
       [](Json& j) {
         j["model"]["unk_token"] = "<|eos|>";
         j["model"]["vocab"].erase("\u00FF");  // 0xFF is not in UTF-8
       },
       ""},
      {"no post-processor", [](Json& j) { j["post_processor"] = nullptr; }, ""},
      {"offsets",
       [](Json& j) {
         j["post_processor"] = {{"type", "ByteLevel"}};
       },
       ""},
      {"no added tokens",
       [](Json& j) {
         j.erase("added_tokens");
         j.erase("post_processor");
       },
       ""},
      {"a special token that strips",
       [](Json& j) { j["added_tokens"][0]["lstrip"] = true; }, ""},
      {"ids with gaps", [](Json& j) { j["model"]["vocab"]["x"] = 999'999; },
       ""},
  };
  for (const BadFile& good : table) {
    Json json = TinyTokenizerJson();
    good.spoil(json);
    EXPECT_TRUE(Tokenizer::Parse(json.dump()).ok()) << good.what;
  }
}

}  // namespace
}  // namespace headcount
