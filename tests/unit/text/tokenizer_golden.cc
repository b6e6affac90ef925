#include "tests/unit/text/tokenizer_golden.h"

#include <cstdint>
#include <iostream>
#include <sstream>

#include "gtest/gtest.h"
#include "tests/golden/golden.h"
#include "text/detokenizer.h"

namespace headcount {
namespace {

using Json = nlohmann::json;

void ExpectGoldenCase(const Tokenizer& tokenizer, const Json& golden) {
  const auto text = golden.at("text").get<std::string>();
  SCOPED_TRACE(text);
  const std::vector<int32_t> ids = tokenizer.Encode(text);
  EXPECT_EQ(ids, golden.at("ids").get<std::vector<int32_t>>());

  std::vector<int32_t> framed(tokenizer.prefix().begin(),
                              tokenizer.prefix().end());
  framed.insert(framed.end(), ids.begin(), ids.end());
  framed.insert(framed.end(), tokenizer.suffix().begin(),
                tokenizer.suffix().end());
  EXPECT_EQ(framed, golden.at("ids_with_special").get<std::vector<int32_t>>());

  const auto decoded = golden.at("decoded").get<std::string>();
  EXPECT_EQ(tokenizer.Decode(ids), decoded);
  EXPECT_EQ(tokenizer.Decode(framed), decoded);
  Detokenizer detokenizer(&tokenizer);
  std::string streamed;
  for (const int32_t id : framed) streamed += detokenizer.Push(id);
  EXPECT_EQ(streamed + detokenizer.Finish(), decoded);
}

}  // namespace

std::string ReadTokenizerGolden(const std::string& file) {
  return ReadGzipFile(HEADCOUNT_SOURCE_DIR "/tests/data/golden/tokenizers/" +
                      file);
}

std::vector<Json> ReadGoldenLines(const std::string& name) {
  std::istringstream lines(ReadTokenizerGolden(name + ".jsonl.gz"));
  std::vector<Json> parsed;
  for (std::string line; std::getline(lines, line);) {
    parsed.push_back(Json::parse(line));
  }
  return parsed;
}

void ExpectGolden(const Tokenizer& tokenizer, const std::string& name) {
  int compared = 0;
  for (const Json& golden : ReadGoldenLines(name)) {
    if (!golden.contains("text")) continue;
    ExpectGoldenCase(tokenizer, golden);
    ++compared;
  }
  EXPECT_GE(compared, 100);
  std::cout << "golden: " << compared << " texts of " << name << " compared\n";
}

}  // namespace headcount
