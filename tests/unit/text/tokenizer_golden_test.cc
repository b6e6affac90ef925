#include <cstdint>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/golden/golden.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace headcount {
namespace {

using Json = nlohmann::json;

class TokenizerGoldenTest : public testing::TestWithParam<const char*> {};

std::string Path(const std::string& name) {
  return HEADCOUNT_SOURCE_DIR "/tests/data/golden/tokenizers/" + name;
}

TEST_P(TokenizerGoldenTest, IdsAndTextEqualTheReference) {
  const std::string name = GetParam();
  const auto tokenizer =
      Tokenizer::Parse(ReadGzipFile(Path(name + ".tokenizer.json.gz")));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();

  std::istringstream lines(ReadGzipFile(Path(name + ".jsonl.gz")));
  int compared = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json golden = Json::parse(line);
    if (golden.contains("meta")) continue;
    const auto text = golden.at("text").get<std::string>();
    SCOPED_TRACE(text);

    const std::vector<int32_t> ids = tokenizer->Encode(text);
    EXPECT_EQ(ids, golden.at("ids").get<std::vector<int32_t>>());

    std::vector<int32_t> framed(tokenizer->prefix().begin(),
                                tokenizer->prefix().end());
    framed.insert(framed.end(), ids.begin(), ids.end());
    framed.insert(framed.end(), tokenizer->suffix().begin(),
                  tokenizer->suffix().end());
    EXPECT_EQ(framed,
              golden.at("ids_with_special").get<std::vector<int32_t>>());

    const auto decoded = golden.at("decoded").get<std::string>();
    EXPECT_EQ(tokenizer->Decode(ids), decoded);
    EXPECT_EQ(tokenizer->Decode(framed), decoded);
    Detokenizer detokenizer(&*tokenizer);
    std::string streamed;
    for (const int32_t id : framed) streamed += detokenizer.Push(id);
    EXPECT_EQ(streamed + detokenizer.Finish(), decoded);
    ++compared;
  }
  EXPECT_GE(compared, 100);
  std::cout << "golden: " << compared << " texts of " << name << " compared\n";
}

// Ids of all kinds, many of bytes that form no character.
TEST(TokenizerDecodeGoldenTest, AnyIdsDecodeAsInTheReference) {
  std::map<std::string, Tokenizer> tokenizers;
  std::istringstream lines(ReadGzipFile(Path("decode.jsonl.gz")));
  int compared = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json golden = Json::parse(line);
    const auto name = golden.at("tokenizer").get<std::string>();
    if (!tokenizers.contains(name)) {
      tokenizers.emplace(
          name,
          Tokenizer::Parse(ReadGzipFile(Path(name + ".tokenizer.json.gz")))
              .value());
    }
    const Tokenizer& tokenizer = tokenizers.at(name);
    const auto ids = golden.at("ids").get<std::vector<int32_t>>();
    const auto decoded = golden.at("decoded").get<std::string>();
    SCOPED_TRACE(line);
    EXPECT_EQ(tokenizer.Decode(ids), decoded);
    Detokenizer detokenizer(&tokenizer);
    std::string streamed;
    for (const int32_t id : ids) {
      const std::string piece = detokenizer.Push(id);
      EXPECT_EQ(ToUtf8(piece), piece);
      streamed += piece;
    }
    EXPECT_EQ(streamed + detokenizer.Finish(), decoded);
    ++compared;
  }
  EXPECT_EQ(compared, 1000);
}

INSTANTIATE_TEST_SUITE_P(All, TokenizerGoldenTest,
                         testing::Values("gemma_style", "gpt2", "llama2",
                                         "llama3", "qwen2", "roberta",
                                         "smollm2_style"),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace headcount
