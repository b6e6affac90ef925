#include "text/stop_matcher.h"

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"

namespace headcount {
namespace {

TEST(StopMatcherTest, HoldsBackWhatCouldBecomeAStopString) {
  StopMatcher matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("Hello"), "Hello");
  EXPECT_EQ(matcher.Push(" you\n"), " you");
  EXPECT_EQ(matcher.Push("\nUs"), "");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(matcher.Push("er: more"), "");
  ASSERT_TRUE(matcher.stopped());
  EXPECT_EQ(*matcher.matched(), "\n\nUser:");
  EXPECT_EQ(matcher.Push("never shown"), "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, GivesBackWhatWasHeldForNothing) {
  StopMatcher matcher({"abab", "xyz"});
  EXPECT_EQ(matcher.Push("..aba"), "..");
  EXPECT_EQ(matcher.Push("c"), "abac");
  EXPECT_EQ(matcher.Push("xy"), "");
  EXPECT_EQ(matcher.Finish(), "xy");
  EXPECT_EQ(matcher.matched(), nullptr);
}

TEST(StopMatcherTest, WithoutStopStringsEverythingIsShown) {
  StopMatcher matcher({"", ""});
  EXPECT_EQ(matcher.Push("text"), "text");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, TheFirstToEndStopsAndTheLongestOfThose) {
  StopMatcher first({"abcd", "bc"});
  EXPECT_EQ(first.Push("xabcd"), "xa");
  EXPECT_EQ(*first.matched(), "bc");
  StopMatcher longest({"bc", "abc", "c"});
  EXPECT_EQ(longest.Push("xabcd"), "x");
  EXPECT_EQ(*longest.matched(), "abc");
}

TEST(StopMatcherTest, ACopyKnowsItsOwnMatch) {
  StopMatcher matcher({"b"});
  matcher.Push("ab");
  const StopMatcher copy = matcher;
  matcher = StopMatcher({});
  EXPECT_EQ(*copy.matched(), "b");
}

// Where the first stop string begins and which it is, by looking everywhere.
struct NaiveMatch {
  size_t begin;
  std::string stop;  // empty: none
};
NaiveMatch NaiveFind(const std::vector<std::string>& stops,
                     std::string_view text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    NaiveMatch match{0, ""};
    for (const std::string& stop : stops) {
      if (stop.size() > match.stop.size() &&
          text.substr(0, end).ends_with(stop)) {
        match = {end - stop.size(), stop};
      }
    }
    if (!match.stop.empty()) return match;
  }
  return {text.size(), ""};
}

TEST(StopMatcherTest, EqualsANaiveSearchHoweverTheTextIsCut) {
  std::mt19937 random(2);
  const auto draw = [&random](size_t limit) {
    return std::uniform_int_distribution<size_t>(0, limit - 1)(random);
  };
  const auto word = [&](size_t size) {
    std::string text;
    for (size_t i = 0; i < size; ++i) text.push_back("ab"[draw(2)]);
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = draw(4); i > 0; --i) stops.push_back(word(draw(8)));
    const std::string text = word(draw(40));
    const NaiveMatch expected = NaiveFind(stops, text);

    StopMatcher matcher(stops);
    std::string shown;
    for (size_t pos = 0; pos < text.size();) {
      const size_t size = 1 + draw(5);
      shown += matcher.Push(std::string_view(text).substr(pos, size));
      // Held back is only what a stop string could begin with.
      ASSERT_LE(shown.size(), expected.begin);
      pos += size;
    }
    ASSERT_EQ(matcher.stopped(), !expected.stop.empty());
    if (matcher.stopped()) {
      ASSERT_EQ(*matcher.matched(), expected.stop);
    }
    shown += matcher.Finish();
    ASSERT_EQ(shown, text.substr(0, expected.begin));
  }
}

}  // namespace
}  // namespace headcount
