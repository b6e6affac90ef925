#include "text/text_pipeline.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/text/tiny_tokenizer.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr int32_t kMaxVocabulary = 1000;

// A tokenizer.json with something wrong, and what the error must say.
struct BadFile {
  const char* what;
  std::function<void(Json&)> spoil;
  std::string message;
};

Json Sequence(const char* list_key, std::vector<Json> steps) {
  return {{"type", "Sequence"}, {list_key, std::move(steps)}};
}

const Json kByteLevel = {
    {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};

Json Split(const std::string& regex, const std::string& behavior, bool invert) {
  return Sequence("pretokenizers", {{{"type", "Split"},
                                     {"pattern", {{"Regex", regex}}},
                                     {"behavior", behavior},
                                     {"invert", invert}},
                                    kByteLevel});
}

constexpr char kQwen2[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

void ExpectRefused(const std::vector<BadFile>& table) {
  for (const BadFile& bad : table) {
    Json json = TinyTokenizerJson();
    bad.spoil(json);
    const auto pipeline =
        ReadTextPipeline(json, /*byte_fallback=*/false, kMaxVocabulary);
    EXPECT_EQ(pipeline.status().code(), absl::StatusCode::kInvalidArgument)
        << bad.what;
    EXPECT_THAT(std::string(pipeline.status().message()),
                HasSubstr(bad.message))
        << bad.what;
  }
}

TEST(TextPipelineTest, PipelinesThatCannotBeReadNameTheStep) {
  ExpectRefused({
      {"other normalizer", [](Json& j) { j["normalizer"]["type"] = "NFKC"; },
       "normalizer.type: \"NFKC\" is not supported"},
      {"normalizer a string", [](Json& j) { j["normalizer"] = "NFC"; },
       "normalizer.type: is missing"},
      {"other normalizer in a sequence",
       [](Json& j) {
         j["normalizer"] = Sequence(
             "normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}});
       },
       "normalizer.normalizers[1].type: \"Lowercase\""},
      {"a sequence in a sequence",
       [](Json& j) {
         j["normalizer"] =
             Sequence("normalizers", {Sequence("normalizers", {})});
       },
       "normalizer.normalizers[0].type: \"Sequence\""},
      {"a sequence of nothing",
       [](Json& j) {
         j["normalizer"] = {{"type", "Sequence"}};
       },
       "normalizer.normalizers: is missing"},
      {"no pre-tokenizer", [](Json& j) { j["pre_tokenizer"] = nullptr; },
       "pre_tokenizer: does not end with ByteLevel"},
      {"other pre-tokenizer",
       [](Json& j) { j["pre_tokenizer"]["type"] = "Whitespace"; },
       "pre_tokenizer: does not end with ByteLevel"},
      {"ByteLevel twice",
       [](Json& j) {
         j["pre_tokenizer"] =
             Sequence("pretokenizers", {kByteLevel, kByteLevel});
       },
       "pre_tokenizer.pretokenizers[0].type: \"ByteLevel\""},
      {"a prefix space in every piece, by default",
       [](Json& j) {
         j["pre_tokenizer"] = Split(kQwen2, "Isolated", false);
         j["pre_tokenizer"]["pretokenizers"][1].erase("add_prefix_space");
       },
       "pre_tokenizer.pretokenizers[1].add_prefix_space: true is not"},
      {"use_regex a number",
       [](Json& j) { j["pre_tokenizer"]["use_regex"] = 1; },
       "pre_tokenizer.use_regex: is 1"},
      {"other pattern",
       [](Json& j) {
         j["pre_tokenizer"] = Split(R"(\w+|x)", "Isolated", false);
       },
       R"(pre_tokenizer.pretokenizers[0].pattern.Regex: "\\w+|x" is not)"},
      {"a pattern that is no regex",
       [](Json& j) {
         j["pre_tokenizer"] = Split(kQwen2, "Isolated", false);
         j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"String", " "}};
       },
       "pre_tokenizer.pretokenizers[0].pattern.Regex: is missing"},
      {"other behavior",
       [](Json& j) { j["pre_tokenizer"] = Split(kQwen2, "Removed", false); },
       "pre_tokenizer.pretokenizers[0].behavior: \"Removed\""},
      {"inverted",
       [](Json& j) { j["pre_tokenizer"] = Split(kQwen2, "Isolated", true); },
       "pre_tokenizer.pretokenizers[0].invert: true"},
      {"no decoder", [](Json& j) { j.erase("decoder"); }, "decoder: has 0"},
      {"other decoder", [](Json& j) { j["decoder"]["type"] = "Metaspace"; },
       "decoder.type: \"Metaspace\""},
  });
}

TEST(TextPipelineTest, PostProcessorsThatCannotBeReadNameTheField) {
  const auto single = [](Json& j) -> Json& {
    return j["post_processor"]["single"];
  };
  const auto ids = [](Json& j) -> Json& {
    return j["post_processor"]["special_tokens"]["<|bos|>"]["ids"];
  };
  const std::string ids_field =
      "post_processor.special_tokens[\"<|bos|>\"].ids: ";
  ExpectRefused({
      {"other", [&](Json& j) { j["post_processor"]["type"] = "Roberta"; },
       "post_processor.type: \"Roberta\""},
      {"no template", [&](Json& j) { j["post_processor"].erase("single"); },
       "post_processor.single: is missing"},
      {"no text", [&](Json& j) { single(j).erase(1); },
       "post_processor.single: has no Sequence A"},
      {"text twice", [&](Json& j) { single(j).push_back(single(j)[1]); },
       "post_processor.single: is not SpecialTokens around one Sequence A"},
      {"text B", [&](Json& j) { single(j)[1]["Sequence"]["id"] = "B"; },
       "post_processor.single: is not"},
      {"a string", [&](Json& j) { single(j)[0] = "<|bos|>"; },
       "post_processor.single: is not"},
      {"no name",
       [&](Json& j) { single(j)[0]["SpecialToken"] = Json::array(); },
       "post_processor.single.SpecialToken.id: is missing"},
      {"unknown name",
       [&](Json& j) { single(j)[0]["SpecialToken"]["id"] = "<s>"; },
       "post_processor.special_tokens[\"<s>\"].ids: is missing"},
      {"ids a number", [&](Json& j) { ids(j) = 261; },
       ids_field + "is 261, not an array"},
      {"id 2^31", [&](Json& j) { ids(j)[0] = int64_t{1} << 31; },
       ids_field + "is 2147483648, not a number from 0 to 999"},
  });
}

TEST(TextPipelineTest, ReadsEveryStepInOrder) {
  Json json = TinyTokenizerJson();
  json["normalizer"] = Sequence("normalizers", {{{"type", "NFC"}}});
  json["pre_tokenizer"] = Split(kQwen2, "Isolated", false);
  Json& steps = json["pre_tokenizer"]["pretokenizers"];
  const Json digits = {{"type", "Digits"}};
  const Json single_digits = {{"type", "Digits"}, {"individual_digits", true}};
  steps = {single_digits, digits, steps[0], kByteLevel};
  steps.back()["use_regex"] = true;
  const auto pipeline =
      ReadTextPipeline(json, /*byte_fallback=*/false, kMaxVocabulary);
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  EXPECT_TRUE(pipeline->normalizer.nfc);
  EXPECT_EQ(pipeline->pre_tokenizer.prefix, PreTokenizer::Prefix::kNone);
  EXPECT_THAT(pipeline->pre_tokenizer.split_rules,
              ElementsAre(SplitRule::kIndividualDigits, SplitRule::kDigitRuns,
                          SplitRule::kQwen2, SplitRule::kGpt2));
  EXPECT_THAT(pipeline->prefix, ElementsAre(261));
}

TEST(TextPipelineTest, ProcessorsWrapWhatTheOnesBeforeMade) {
  Json json = TinyTokenizerJson();
  Json outer = json["post_processor"];
  outer["special_tokens"]["<|bos|>"]["ids"] = {262, 261};
  std::swap(outer["single"][0], outer["single"][1]);
  json["post_processor"] = Sequence(
      "processors", {{{"type", "ByteLevel"}}, json["post_processor"], outer});
  const auto pipeline =
      ReadTextPipeline(json, /*byte_fallback=*/false, kMaxVocabulary);
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  EXPECT_THAT(pipeline->prefix, ElementsAre(261));
  EXPECT_THAT(pipeline->suffix, ElementsAre(262, 261));
}

TEST(TextPipelineTest, ReadsThePipelineOfRoberta) {
  Json json = TinyTokenizerJson();
  json["pre_tokenizer"].erase("add_prefix_space");  // true when absent
  json["post_processor"] = {{"type", "RobertaProcessing"},
                            {"sep", {"</s>", 262}},
                            {"cls", {"<s>", 261}}};
  const auto pipeline =
      ReadTextPipeline(json, /*byte_fallback=*/false, kMaxVocabulary);
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  EXPECT_EQ(pipeline->pre_tokenizer.prefix, PreTokenizer::Prefix::kAll);
  EXPECT_THAT(pipeline->prefix, ElementsAre(261));
  EXPECT_THAT(pipeline->suffix, ElementsAre(262));

  json["post_processor"]["sep"] = {"</s>"};
  EXPECT_THAT(
      std::string(
          ReadTextPipeline(json, false, kMaxVocabulary).status().message()),
      HasSubstr("post_processor.sep: has 1 entries"));
  json["post_processor"]["sep"] = {"</s>", -1};
  EXPECT_THAT(
      std::string(
          ReadTextPipeline(json, false, kMaxVocabulary).status().message()),
      HasSubstr("post_processor.sep[1]: is -1"));
}

TEST(TextPipelineTest, ReadsThePipelinesOfSentencePiece) {
  using Prefix = PreTokenizer::Prefix;
  Json json = TinyFallbackTokenizerJson();
  auto pipeline =
      ReadTextPipeline(json, /*byte_fallback=*/true, kMaxVocabulary);
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  EXPECT_TRUE(pipeline->normalizer.prepend_mark);
  EXPECT_TRUE(pipeline->normalizer.mark_spaces);
  EXPECT_EQ(pipeline->pre_tokenizer.prefix, Prefix::kNone);
  EXPECT_TRUE(pipeline->strip_leading_space);

  json["normalizer"] = nullptr;
  json["decoder"]["decoders"].erase(3);
  const std::vector<std::pair<Json, Prefix>> schemes = {
      {"always", Prefix::kAll},
      {"first", Prefix::kFirst},
      {"never", Prefix::kNone},
      {nullptr, Prefix::kAll}};
  for (const auto& [scheme, prefix] : schemes) {
    json["pre_tokenizer"] = {{"type", "Metaspace"},
                             {"replacement", "\u2581"},
                             {"prepend_scheme", scheme},
                             {"split", scheme == "first"}};
    pipeline = ReadTextPipeline(json, /*byte_fallback=*/true, kMaxVocabulary);
    ASSERT_TRUE(pipeline.ok()) << pipeline.status();
    EXPECT_FALSE(pipeline->normalizer.mark_spaces);
    EXPECT_TRUE(pipeline->pre_tokenizer.mark_spaces);
    EXPECT_EQ(pipeline->pre_tokenizer.prefix, prefix) << scheme;
    EXPECT_EQ(pipeline->pre_tokenizer.split_rules.size(),
              scheme == "first" ? 1 : 0);
    EXPECT_FALSE(pipeline->strip_leading_space);
  }
}

TEST(TextPipelineTest, PipelinesOfSentencePieceThatDifferNameTheStep) {
  const auto metaspace = [](Json extra) {
    Json step = {{"type", "Metaspace"}, {"replacement", "\u2581"}};
    step.update(extra);
    return step;
  };
  const auto normalizers = [](Json& j) -> Json& {
    return j["normalizer"]["normalizers"];
  };
  const auto decoders = [](Json& j) -> Json& {
    return j["decoder"]["decoders"];
  };
  const std::vector<BadFile> table = {
      {"other mark", [&](Json& j) { normalizers(j)[0]["prepend"] = "_"; },
       "normalizer.normalizers[0].prepend: \"_\" is not supported"},
      {"two marks",
       [&](Json& j) { normalizers(j).push_back(normalizers(j)[0]); },
       "normalizer.normalizers[2].type: \"Prepend\""},
      {"other letter",
       [&](Json& j) { normalizers(j)[1]["pattern"]["String"] = "  "; },
       "normalizer.normalizers[1].pattern.String: \"  \""},
      {"regex",
       [&](Json& j) {
         normalizers(j)[1]["pattern"] = {{"Regex", " "}};
       },
       "normalizer.normalizers[1].pattern.String: is missing"},
      {"no pattern", [&](Json& j) { normalizers(j)[1].erase("pattern"); },
       "normalizer.normalizers[1].pattern: is missing"},
      {"other normalizer",
       [&](Json& j) {
         normalizers(j)[1] = {{"type", "Lowercase"}};
       },
       "normalizer.normalizers[1].type: \"Lowercase\""},
      {"other scheme",
       [&](Json& j) {
         j["pre_tokenizer"] = metaspace({{"prepend_scheme", "x"}});
       },
       "pre_tokenizer.prepend_scheme: \"x\" is not"},
      {"contradicting schemes",
       [&](Json& j) {
         j["pre_tokenizer"] = metaspace({{"add_prefix_space", false}});
       },
       "pre_tokenizer.prepend_scheme: \"always\" contradicts"},
      {"other replacement",
       [&](Json& j) {
         j["pre_tokenizer"] = metaspace({{"replacement", "_"}});
       },
       "pre_tokenizer.replacement: \"_\""},
      {"other pre-tokenizer",
       [&](Json& j) {
         j["pre_tokenizer"] = {{"type", "Digits"}};
       },
       "pre_tokenizer.type: \"Digits\""},
      {"a split at something else",
       [&](Json& j) {
         j["pre_tokenizer"] = {{"type", "Split"},
                               {"pattern", {{"String", "x"}}}};
       },
       "pre_tokenizer.type: \"Split\""},
      {"a split at spaces that are there",
       [&](Json& j) {
         j["normalizer"] = nullptr;
         j["pre_tokenizer"] = {{"type", "Split"},
                               {"pattern", {{"String", " "}}}};
       },
       "pre_tokenizer.type: \"Split\""},
      {"no decoder", [&](Json& j) { j["decoder"] = nullptr; },
       "decoder: has 0 steps"},
      {"two strips", [&](Json& j) { decoders(j).push_back(decoders(j)[3]); },
       "decoder: has 5 steps"},
      {"other order",
       [&](Json& j) { std::swap(decoders(j)[1], decoders(j)[2]); },
       "decoder.decoders[1].type: \"Fuse\" is not supported here; "
       "ByteFallback is"},
      {"other replacement", [&](Json& j) { decoders(j)[0]["content"] = ""; },
       "decoder.decoders[0].content: \"\""},
      {"two spaces", [&](Json& j) { decoders(j)[3]["start"] = 2; },
       "decoder.decoders[3].start: is 2"},
      {"the end", [&](Json& j) { decoders(j)[3]["stop"] = 1; },
       "decoder.decoders[3].stop: is 1; 0 is"},
      {"no count", [&](Json& j) { decoders(j)[3].erase("stop"); },
       "decoder.decoders[3].stop: is null"},
      {"other letter", [&](Json& j) { decoders(j)[3]["content"] = "x"; },
       "decoder.decoders[3].content: \"x\""},
  };
  for (const BadFile& bad : table) {
    Json json = TinyFallbackTokenizerJson();
    bad.spoil(json);
    const auto pipeline =
        ReadTextPipeline(json, /*byte_fallback=*/true, kMaxVocabulary);
    EXPECT_EQ(pipeline.status().code(), absl::StatusCode::kInvalidArgument)
        << bad.what;
    EXPECT_THAT(std::string(pipeline.status().message()),
                HasSubstr(bad.message))
        << bad.what;
  }
}

}  // namespace
}  // namespace headcount
