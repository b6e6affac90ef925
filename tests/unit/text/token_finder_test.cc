#include "text/token_finder.h"

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace headcount {
namespace {

using Tokens = std::vector<std::pair<std::string, int32_t>>;

TEST(TokenFinderTest, FindsTheLongestOfThoseThatBeginFirst) {
  const Tokens tokens = {{"bcd", 1}, {"ab", 2}, {"abc", 3}, {"d", 4}};
  const TokenFinder finder(tokens);
  const std::optional<TokenFinder::Match> match = finder.Find("xabcd", 0);
  ASSERT_TRUE(match.has_value());
  EXPECT_EQ(match->begin, 1);
  EXPECT_EQ(match->size, 3);
  EXPECT_EQ(match->id, 3);
  EXPECT_EQ(finder.Find("xabcd", 4)->id, 4);
  EXPECT_EQ(finder.Find("abx", 0)->id, 2);
  EXPECT_FALSE(finder.Find("xyz", 0).has_value());
  EXPECT_FALSE(TokenFinder().Find("abc", 0).has_value());
}

TEST(TokenFinderTest, WalksEqualToTryingEveryTokenEverywhere) {
  std::mt19937 random(7);
  const auto word = [&random](size_t max) {
    std::string text;
    for (size_t i = 1 + random() % max; i > 0; --i) text += "ab"[random() % 2];
    return text;
  };
  for (int round = 0; round < 500; ++round) {
    Tokens tokens;
    for (int32_t id = 0; id < 4; ++id) tokens.emplace_back(word(4) + "c", id);
    const std::string text = word(20) + "c" + word(6) + "c" + word(6);
    std::string walked;
    TokenFinder(tokens).Walk(
        text, [&](std::string_view plain) { walked += plain; },
        [&](int32_t id) { walked += std::to_string(id); });

    std::string expected;
    for (size_t pos = 0; pos < text.size();) {
      size_t longest = 0;
      std::string shown(1, text[pos]);
      for (const auto& [spelling, id] : tokens) {
        if (spelling.size() > longest &&
            text.substr(pos).starts_with(spelling)) {
          longest = spelling.size();
          shown = std::to_string(id);
        }
      }
      expected += shown;
      pos += longest == 0 ? 1 : longest;
    }
    ASSERT_EQ(walked, expected) << text;
  }
}

// Gemma has thousands that begin with "<".
TEST(TokenFinderTest, ManyTokensThatBeginAlikeCostNoMoreThanOne) {
  Tokens tokens;
  for (int32_t id = 0; id < 10'000; ++id) {
    tokens.emplace_back("<unused" + std::to_string(id) + ">", id);
  }
  const TokenFinder finder(tokens);
  const std::string text(1 << 20, '<');
  EXPECT_FALSE(finder.Find(text, 0).has_value());
  EXPECT_EQ(finder.Find(text + "unused9999>", 0)->id, 9999);
}

}  // namespace
}  // namespace headcount
