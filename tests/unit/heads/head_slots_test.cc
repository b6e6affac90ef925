#include "heads/head_slots.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Two layers of six query heads in two groups, and one without attention.
HeadLayout Layout(const HeadMask& mask) {
  return HeadLayout::Create(
             {.layers = {{6, 2}, {0, 0}, {6, 2}}, .head_dim = 8, .mask = mask})
      .value();
}

TEST(HeadSlots, OfTheSameLayoutAreAll) {
  const HeadLayout layout = Layout({.pruned = {{0, {1, 3, 4, 5}}}});
  const std::vector<LayerSlots> slots = SlotsIn(layout, layout).value();
  ASSERT_EQ(slots.size(), 3u);
  EXPECT_THAT(slots[0].query, ElementsAre(0, 1));
  EXPECT_THAT(slots[0].kv, ElementsAre(0));
  EXPECT_THAT(slots[1].query, IsEmpty());
  EXPECT_THAT(slots[2].query, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(slots[2].kv, ElementsAre(0, 1));
}

TEST(HeadSlots, SkipWhatTheNarrowerLayoutPrunes) {
  const HeadLayout wide = Layout({.pruned = {{0, {1}}}});
  const HeadLayout narrow =
      Layout({.pruned = {{0, {0, 1, 2, 4}}, {2, {0, 1, 2, 3, 4, 5}}}});
  const std::vector<LayerSlots> slots = SlotsIn(wide, narrow).value();
  // Heads 3 and 5 of 0, 2, 3, 4, 5; the second group.
  EXPECT_THAT(slots[0].query, ElementsAre(2, 4));
  EXPECT_THAT(slots[0].kv, ElementsAre(1));
  EXPECT_THAT(slots[2].query, IsEmpty());
  EXPECT_THAT(slots[2].kv, IsEmpty());
}

TEST(HeadSlots, NameTheHeadThatIsNotThere) {
  const HeadLayout wide = Layout({.pruned = {{2, {3, 4, 5}}}});
  const HeadLayout narrow = Layout({.pruned = {{0, {0}}, {2, {3, 5}}}});
  const absl::Status status = SlotsIn(wide, narrow).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "heads.pruned: layer 2, head 4 would run, but the base has pruned "
            "it; name it here too");
}

}  // namespace
}  // namespace headcount
