#include "kv/block_table.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/kv/group_of.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(BlockTable, KeepsTheOrderOfItsBlocksAndFreesThemAll) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = GroupOf(&pool, 256);
  {
    BlockTable table;
    EXPECT_EQ(table.capacity_tokens(), 0);
    table.Append(pool.Allocate(group, 1));
    std::vector<BlockRef> other = pool.Allocate(group, 1);
    table.Append(pool.Allocate(group, 2));
    EXPECT_THAT(table.offsets(), ElementsAre(0, 512, 768));
    EXPECT_EQ(table.num_entries(), 3);
    EXPECT_EQ(table.capacity_tokens(), 48);

    BlockTable moved = std::move(table);
    EXPECT_EQ(moved.num_entries(), 3);
    EXPECT_EQ(pool.bytes().used, 4 * 256);
    moved.Clear();
    EXPECT_THAT(moved.offsets(), IsEmpty());
    EXPECT_EQ(pool.bytes().used, 256);
  }
  EXPECT_EQ(pool.bytes().used, 0);
  pool.CheckInvariants();
}

constexpr int64_t kHole = BlockTable::kHole;

TEST(BlockTable, GivesBackWhatAWindowHasLeftBehind) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = GroupOf(&pool, 256);
  BlockTable table;
  table.Append(pool.Allocate(group, 4));
  EXPECT_THAT(table.offsets(), ElementsAre(0, 256, 512, 768));

  table.Slide(/*first_token=*/15, /*num_tokens=*/0);  // in the first block
  EXPECT_EQ(table.num_blocks(), 4);
  table.Slide(33, 64);  // in the third; there is room for 64 tokens already
  EXPECT_THAT(table.offsets(), ElementsAre(kHole, kHole, 512, 768));
  EXPECT_EQ(table.num_holes(), 2);
  EXPECT_EQ(table.num_blocks(), 2);
  EXPECT_EQ(table.num_entries(), 4);
  EXPECT_EQ(table.capacity_tokens(), 64);
  EXPECT_EQ(pool.bytes().used, 2 * 256);
  pool.CheckInvariants();

  table.Slide(33, 64);
  EXPECT_EQ(table.num_blocks(), 2);
  table.Slide(64, 0);
  EXPECT_EQ(pool.bytes().used, 0);
  table.Append(pool.Allocate(group, 1));
  EXPECT_EQ(table.num_entries(), 5);
  EXPECT_EQ(table.num_holes(), 4);
  table.Clear();
  EXPECT_EQ(table.num_holes(), 0);
  EXPECT_EQ(table.capacity_tokens(), 0);
}

TEST(BlockTable, KeepsTheSink) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = GroupOf(&pool, 256);
  BlockTable table;
  table.Append(pool.Allocate(group, 4));
  table.Slide(/*first_token=*/33, /*num_tokens=*/0, /*sink_tokens=*/16);
  EXPECT_THAT(table.offsets(), ElementsAre(0, kHole, 512, 768));
  EXPECT_EQ(table.num_holes(), 1);
  EXPECT_EQ(table.holes_end_token(), 32);
  EXPECT_FALSE(table.IsHole(0));
  EXPECT_TRUE(table.IsHole(1));
  EXPECT_EQ(table.block(0).offset(), 0);
  EXPECT_EQ(pool.bytes().used, 3 * 256);
  pool.CheckInvariants();
}

TEST(BlockTable, ReusesWhatAWindowHasLeftBehindForLaterTokens) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = GroupOf(&pool, 256);
  BlockTable table;
  table.Append(pool.Allocate(group, 3));
  table.Slide(16, 65);
  EXPECT_THAT(table.offsets(), ElementsAre(kHole, 256, 512, 0));
  // One more makes room for 80; the other goes back.
  table.Slide(48, 65);
  EXPECT_THAT(table.offsets(), ElementsAre(kHole, kHole, kHole, 0, 256));
  EXPECT_EQ(table.num_blocks(), 2);
  EXPECT_EQ(pool.bytes().used, 2 * 256);
  pool.CheckInvariants();
}

}  // namespace
}  // namespace headcount
