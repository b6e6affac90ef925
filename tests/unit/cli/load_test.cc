#include "cli/load.h"

#include "gtest/gtest.h"

namespace headcount {
namespace {

TEST(LoadTest, PromptsAreTheSameEverywhereAndDifferByRequest) {
  const std::vector<int32_t> prompt = MakePrompt(1, 0, 64, 2048);
  EXPECT_EQ(prompt, MakePrompt(1, 0, 64, 2048));
  EXPECT_NE(prompt, MakePrompt(1, 1, 64, 2048));
  EXPECT_NE(prompt, MakePrompt(2, 0, 64, 2048));
  for (const int32_t id : prompt) {
    EXPECT_GE(id, 0);
    EXPECT_LT(id, 2048);
  }
}

TEST(LoadTest, TheHashSeesEveryTokenAndWhereAnAnswerEnds) {
  const auto hash = [](std::vector<std::vector<int32_t>> answers) {
    std::vector<Exchange> exchanges;
    for (const auto& tokens : answers) {
      exchanges.emplace_back().tokens = tokens;
    }
    return HashTokens(exchanges);
  };
  EXPECT_EQ(hash({{1, 2}, {3}}), hash({{1, 2}, {3}}));
  EXPECT_NE(hash({{1, 2}, {3}}), hash({{1, 2}, {4}}));
  EXPECT_NE(hash({{1, 2}, {3}}), hash({{1}, {2, 3}}));
  EXPECT_NE(hash({{1, 2}}), hash({{2, 1}}));
  EXPECT_NE(hash({{}}), hash({}));
}

}  // namespace
}  // namespace headcount
