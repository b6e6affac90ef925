#include "engine/choice_walk.h"

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int32_t kEnd = 100;

TEST(ChoiceWalkTest, NarrowsDownToOneChoice) {
  ChoiceWalk walk({{5, 7}, {5, 8, 9}, {6}}, {kEnd});
  EXPECT_THAT(walk.allowed(), ElementsAre(5, 6));
  walk.Push(5);
  EXPECT_THAT(walk.allowed(), ElementsAre(7, 8));
  EXPECT_FALSE(walk.chosen().has_value());
  walk.Push(8);
  EXPECT_THAT(walk.allowed(), ElementsAre(9));
  walk.Push(9);
  EXPECT_THAT(walk.allowed(), IsEmpty());
  EXPECT_EQ(walk.chosen(), 1);
}

TEST(ChoiceWalkTest, AChoiceThatBeginsAnotherNeedsAnEnd) {
  for (const bool ends : {true, false}) {
    ChoiceWalk walk({{5, 6}, {5}}, {kEnd, 3});
    walk.Push(5);
    EXPECT_THAT(walk.allowed(), ElementsAre(3, 6, kEnd));
    EXPECT_FALSE(walk.chosen().has_value());
    walk.Push(ends ? kEnd : 6);
    EXPECT_EQ(walk.chosen(), ends ? 1 : 0);
  }
}

TEST(ChoiceWalkTest, ATokenThatLeadsOnIsNoEnd) {
  ChoiceWalk walk({{5}, {5, kEnd, 6}}, {kEnd});
  walk.Push(5);
  EXPECT_THAT(walk.allowed(), ElementsAre(kEnd));
  walk.Push(kEnd);
  EXPECT_THAT(walk.allowed(), ElementsAre(6));
}

TEST(ChoiceWalkTest, WithoutChoicesNothingIsChosen) {
  const ChoiceWalk walk({}, {kEnd});
  EXPECT_THAT(walk.allowed(), IsEmpty());
  EXPECT_FALSE(walk.chosen().has_value());
}

// Every choice can be reached by its own tokens, and whatever random path of
// allowed tokens is taken spells a choice.
TEST(ChoiceWalkTest, EveryPathSpellsAChoiceAndEveryChoiceHasAPath) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::set<std::vector<int32_t>> set;
    while (set.size() < 1 + random() % 12) {
      std::vector<int32_t> choice(1 + random() % 5);
      for (int32_t& token : choice) token = static_cast<int32_t>(random() % 3);
      set.insert(choice);
    }
    std::vector<std::vector<int32_t>> choices(set.begin(), set.end());
    std::shuffle(choices.begin(), choices.end(), random);
    for (size_t i = 0; i < choices.size(); ++i) {
      ChoiceWalk walk(choices, {kEnd});
      for (const int32_t token : choices[i]) walk.Push(token);
      if (!walk.chosen()) walk.Push(kEnd);
      EXPECT_EQ(walk.chosen(), static_cast<int32_t>(i));
    }
    ChoiceWalk walk(choices, {kEnd});
    std::vector<int32_t> path;
    while (!walk.chosen()) {
      ASSERT_FALSE(walk.allowed().empty());
      const int32_t token = walk.allowed()[random() % walk.allowed().size()];
      walk.Push(token);
      if (token != kEnd) path.push_back(token);
    }
    EXPECT_EQ(path, choices[static_cast<size_t>(*walk.chosen())]);
  }
}

}  // namespace
}  // namespace headcount
