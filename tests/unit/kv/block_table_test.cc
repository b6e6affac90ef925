#include "kv/block_table.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(BlockTable, KeepsTheOrderOfItsBlocksAndFreesThemAll) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = *pool.AddGroup(256);
  {
    BlockTable table;
    EXPECT_EQ(table.capacity_tokens(), 0);
    table.Append(pool.Allocate(group, 1));
    std::vector<BlockRef> other = pool.Allocate(group, 1);
    table.Append(pool.Allocate(group, 2));
    EXPECT_THAT(table.offsets(), ElementsAre(0, 512, 768));
    EXPECT_EQ(table.num_blocks(), 3);
    EXPECT_EQ(table.capacity_tokens(), 48);

    BlockTable moved = std::move(table);
    EXPECT_EQ(moved.num_blocks(), 3);
    EXPECT_EQ(pool.used_bytes(group), 4 * 256);
    moved.Clear();
    EXPECT_THAT(moved.offsets(), IsEmpty());
    EXPECT_EQ(pool.used_bytes(group), 256);
  }
  EXPECT_EQ(pool.used_bytes(group), 0);
  pool.CheckInvariants();
}

}  // namespace
}  // namespace headcount
