#include "format/json.h"

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/format/temp_folder.h"

namespace headcount {
namespace {

TEST(JsonTest, BuildsTheTreeThatTheLibraryBuilds) {
  for (const char* text :
       {"null", "true", "-7", "18446744073709551615", "-9223372036854775808",
        "1.5e3", "\"\"", "[]", "{}", "[[], {}, [[]], [{}]]", " [1, [2, 3], 4] ",
        R"({"a": {"b": [1, {"c": null}], "d": {}}, "e": "\u00e9\ud83d\ude00"})",
        "\xef\xbb\xbf[\"after a byte order mark\"]", R"(["a\u0000b", ""])"}) {
    const absl::StatusOr<nlohmann::json> tree = ParseJson(text, "text");
    ASSERT_TRUE(tree.ok()) << tree.status();
    EXPECT_EQ(*tree, nlohmann::json::parse(text)) << text;
    EXPECT_EQ(tree->type(), nlohmann::json::parse(text).type()) << text;
  }
}

TEST(JsonTest, BuildsTheTreesOfRealModels) {
  for (const char* path :
       {"/models/mailroom/config.json", "/models/mailroom/tokenizer.json",
        "/tests/data/golden/tiny/llama_rope_yarn/config.json",
        "/tests/data/golden/tiny/llama_gqa/model.safetensors.index.json"}) {
    const std::string file = std::string(HEADCOUNT_SOURCE_DIR) + path;
    const absl::StatusOr<nlohmann::json> tree = ReadJsonFile(file);
    ASSERT_TRUE(tree.ok()) << tree.status();
    EXPECT_EQ(*tree, nlohmann::json::parse(std::ifstream(file))) << path;
  }
}

TEST(JsonTest, SixtyFourLevelsAreAllowed) {
  const std::string text = std::string(64, '[') + std::string(64, ']');
  EXPECT_TRUE(ParseJson(text, "text").ok());
  EXPECT_FALSE(ParseJson("[" + text + "]", "text").ok());
}

TEST(JsonTest, ErrorsNameTheSourceAndThePlace) {
  EXPECT_EQ(
      ParseJson("{\"a\": 1,\n}", "config.json").status(),
      absl::InvalidArgumentError(
          "config.json: at byte 10: parse error at line 2, column 1: syntax "
          "error while parsing object key - unexpected '}'; expected string "
          "literal"));
}

TEST(JsonTest, AnAbsentFileIsNotFound) {
  const TempFolder folder;
  EXPECT_EQ(
      ReadJsonFile((folder.path() / "config.json").string()).status().code(),
      absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadJsonFile(folder.path().string()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace headcount
