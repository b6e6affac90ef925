#include "tests/unit/text/tokenizer_golden.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace headcount {
namespace {

using Json = nlohmann::json;

class TokenizerGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerGoldenTest, IdsAndTextEqualTheReference) {
  const std::string name = GetParam();
  const auto tokenizer =
      Tokenizer::Parse(ReadTokenizerGolden(name + ".tokenizer.json.gz"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectGolden(*tokenizer, name);
}

// Ids of all kinds, many of bytes that form no character.
TEST(TokenizerDecodeGoldenTest, AnyIdsDecodeAsInTheReference) {
  std::map<std::string, Tokenizer> tokenizers;
  int compared = 0;
  for (const Json& golden : ReadGoldenLines("decode")) {
    const auto name = golden.at("tokenizer").get<std::string>();
    if (!tokenizers.contains(name)) {
      tokenizers.emplace(
          name,
          Tokenizer::Parse(ReadTokenizerGolden(name + ".tokenizer.json.gz"))
              .value());
    }
    const Tokenizer& tokenizer = tokenizers.at(name);
    const auto ids = golden.at("ids").get<std::vector<int32_t>>();
    const auto decoded = golden.at("decoded").get<std::string>();
    SCOPED_TRACE(golden.dump());
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
