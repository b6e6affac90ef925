#include "kv/block_pool.h"

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/kv/group_of.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

int64_t SumOf(const PoolBytes& bytes) {
  return bytes.used + bytes.cached + bytes.free + bytes.reserved;
}

TEST(BlockPool, LendsAllBlocksOrNone) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = GroupOf(&pool, 256);
  EXPECT_EQ(pool.TotalBlocks(group), 16);
  std::vector<BlockRef> blocks = pool.Allocate(group, 15);
  EXPECT_THAT(blocks, SizeIs(15));
  EXPECT_EQ(pool.AvailableBlocks(group), 1);
  EXPECT_THAT(pool.Allocate(group, 2), IsEmpty());
  EXPECT_EQ(pool.AvailableBlocks(group), 1);
  EXPECT_THAT(pool.Allocate(group, 1), SizeIs(1));
  EXPECT_THAT(pool.Allocate(group, 0), IsEmpty());
  pool.CheckInvariants();
}

TEST(BlockPool, CountsSharedBlocksOnceAndFreesThemWithTheLastHolder) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = GroupOf(&pool, 256);
  BlockRef first = std::move(pool.Allocate(group, 1)[0]);
  BlockRef second = first.Share();
  EXPECT_EQ(first.ref_count(), 2);
  EXPECT_EQ(first.offset(), second.offset());
  EXPECT_EQ(pool.bytes().used, 256);
  first.Reset();
  EXPECT_FALSE(first);
  first.Reset();
  EXPECT_EQ(second.ref_count(), 1);
  pool.CheckInvariants();
  BlockRef third = std::move(second);
  EXPECT_FALSE(second);  // NOLINT(bugprone-use-after-move): moved is empty
  third = pool.Allocate(group, 1)[0].Share();
  EXPECT_EQ(pool.bytes().used, 256);
  third.Reset();
  EXPECT_EQ(pool.bytes().used, 0);
  pool.CheckInvariants();
}

TEST(BlockPool, GivesEmptySlabsToTheGroupThatNeedsThem) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId small = GroupOf(&pool, 256);
  const GroupId large = GroupOf(&pool, 700);  // one to a slab
  std::vector<BlockRef> blocks = pool.Allocate(small, 16);
  EXPECT_EQ(pool.AvailableBlocks(large), 0);
  EXPECT_THAT(pool.Allocate(large, 1), IsEmpty());
  blocks.erase(blocks.begin(), blocks.begin() + 7);
  EXPECT_EQ(pool.AvailableBlocks(large), 1);
  std::vector<BlockRef> taken = pool.Allocate(large, 1);
  EXPECT_THAT(taken, SizeIs(1));
  EXPECT_EQ(pool.bytes().reserved, 1024 - 700);
  EXPECT_EQ(pool.AvailableBlocks(small), 3);
  pool.CheckInvariants();
}

TEST(BlockPool, FillsTheFullestSlabFirst) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = GroupOf(&pool, 256);
  std::vector<BlockRef> blocks = pool.Allocate(group, 12);  // three slabs
  // Slab 0 keeps one block, slab 1 three, slab 2 two.
  for (size_t i : {1u, 2u, 3u, 7u, 8u, 9u}) blocks[i].Reset();
  EXPECT_EQ(pool.Allocate(group, 1)[0].offset() / 1024, 1);
  const std::vector<BlockRef> three = pool.Allocate(group, 3);
  EXPECT_EQ(three[0].offset() / 1024, 1);
  EXPECT_EQ(three[1].offset() / 1024, 2);
  EXPECT_EQ(three[2].offset() / 1024, 2);
  pool.CheckInvariants();
}

TEST(BlockPool, RefusesABlockLargerThanASlab) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const absl::Status status = pool.AddModel({}, {1025}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("kv_pool: 16 tokens of this model need a piece of 1025 "
                        "bytes, but the pool is lent in pieces of 1024 bytes"));
  EXPECT_TRUE(pool.AddModel({}, {1024}).ok());
}

// "--kv-pool 5" was told of slabs of 2097152 bytes.
TEST(BlockPool, SaysInSizesHowMuchAModelNeeds) {
  const auto refusal = [](BlockPool* pool, int64_t floor) {
    const auto model = pool->AddModel({.floor_bytes = floor}, {100});
    return std::string(model.status().message());
  };
  BlockPool tiny({.capacity_bytes = 5, .slab_bytes = 2 << 20});
  EXPECT_EQ(refusal(&tiny, 0),
            "kv_pool: 5 B is too small: this model needs 2.0 MiB; make kv_pool "
            "(--kv-pool) larger");
  BlockPool pool({.capacity_bytes = 1 << 30, .slab_bytes = 4 << 20});
  EXPECT_EQ(refusal(&pool, int64_t{2} << 30),
            "kv_pool: 1.0 GiB is too small: this model needs 2.0 GiB for its "
            "kv_cache.quota.min; make kv_pool (--kv-pool) larger, or "
            "kv_cache.quota.min smaller");
  BlockPool almost({.capacity_bytes = 2047, .slab_bytes = 1024});
  EXPECT_THAT(refusal(&almost, 2048), HasSubstr("needs 2048 bytes"));
  // What all need together may be more than there are numbers for.
  ASSERT_EQ(refusal(&almost, 0), "");
  EXPECT_THAT(refusal(&almost, std::numeric_limits<int64_t>::max()),
              Not(HasSubstr(" -")));
}

TEST(BlockPool, CountsTheEndOfTheArenaAsReserved) {
  const BlockPool pool({.capacity_bytes = 4100, .slab_bytes = 1024});
  EXPECT_EQ(pool.bytes().reserved, 4);
  EXPECT_EQ(pool.bytes().free, 4096);
  const BlockPool empty({.capacity_bytes = 1000, .slab_bytes = 1024});
  EXPECT_EQ(empty.bytes().reserved, 1000);
  empty.CheckInvariants();
}

TEST(BlockPool, EveryGroupNeedsASlab) {
  BlockPool pool({.capacity_bytes = 3 * 1024, .slab_bytes = 1024});
  const PoolModel two = pool.AddModel({}, {100, 200}).value();
  const absl::Status status = pool.AddModel({}, {100, 200}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("kv_pool: 3.0 KiB is too small: this model needs 2.0 "
                        "KiB, and all together 4.0 KiB; make kv_pool "
                        "(--kv-pool) larger"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("quota")));
  pool.RemoveModel(two);
  EXPECT_TRUE(pool.AddModel({}, {100, 200}).ok());
}

TEST(BlockPool, FloorsMayNotBeMoreThanThePool) {
  BlockPool pool({.capacity_bytes = 8 * 1024, .slab_bytes = 1024});
  const absl::Status above =
      pool.AddModel({.floor_bytes = 2048, .ceiling_bytes = 2047}, {100})
          .status();
  EXPECT_EQ(above.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(above.message()),
              HasSubstr("in pieces of 1.0 KiB, of which it allows 1.0 KiB, but "
                        "this model needs 2.0 KiB for its kv_cache.quota.min"));
  ASSERT_TRUE(pool.AddModel({.floor_bytes = 4097}, {100}).ok());
  const absl::Status status =
      pool.AddModel({.floor_bytes = 3 * 1024 + 1}, {100}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("kv_pool: 8.0 KiB is too small: this model needs 4.0 "
                        "KiB for its kv_cache.quota.min, and all together 9.0 "
                        "KiB"));
  EXPECT_TRUE(pool.AddModel({.floor_bytes = 3 * 1024}, {100}).ok());
}

TEST(BlockPool, ACeilingIsNeverPassed) {
  BlockPool pool({.capacity_bytes = 8 * 1024, .slab_bytes = 1024});
  const GroupId group = pool.AddModel({.ceiling_bytes = 3 * 1024 + 1000}, {512})
                            .value()
                            .groups[0];
  EXPECT_EQ(pool.TotalBlocks(group), 6);
  EXPECT_EQ(pool.AvailableBlocks(group), 6);
  EXPECT_THAT(pool.Allocate(group, 7), IsEmpty());
  const std::vector<BlockRef> blocks = pool.Allocate(group, 6);
  EXPECT_THAT(blocks, SizeIs(6));
  EXPECT_EQ(pool.AvailableBlocks(group), 0);
  EXPECT_TRUE(pool.AtCeiling(0));
  pool.CheckInvariants();
}

TEST(BlockPool, FloorsOfOthersAreNotForGood) {
  BlockPool pool({.capacity_bytes = 8 * 1024, .slab_bytes = 1024});
  const PoolModel floor =
      pool.AddModel({.floor_bytes = 3 * 1024}, {512}).value();
  const GroupId other = GroupOf(&pool, 1024);
  EXPECT_EQ(pool.TotalBlocks(other), 5) << "what can be counted on";
  EXPECT_EQ(pool.AvailableBlocks(other), 8) << "what can be borrowed";
  EXPECT_EQ(pool.FloorSlabs(floor.id), 3);
  const std::vector<BlockRef> mine = pool.Allocate(floor.groups[0], 3);
  EXPECT_EQ(pool.FloorSlabs(floor.id), 1);
  EXPECT_EQ(pool.NeededSlabs(floor, {4}), 2) << "one has room in its slab";
  EXPECT_TRUE(pool.BelowFloor(floor.id));
  EXPECT_FALSE(pool.OverFloor(floor.id));
  const std::vector<BlockRef> more = pool.Allocate(floor.groups[0], 4);
  EXPECT_TRUE(pool.OverFloor(floor.id));
  EXPECT_LT(pool.FloorSlabs(floor.id), 0);
  EXPECT_LT(pool.FloorSlabs(1), 0) << "it has no floor";
}

TEST(BlockPool, GroupsOfAModelCompeteForSlabs) {
  BlockPool pool({.capacity_bytes = 4 * 1024, .slab_bytes = 1024});
  const PoolModel two = pool.AddModel({}, {512, 256}).value();
  EXPECT_EQ(pool.ReachableSlabs(two.id), 4);
  EXPECT_EQ(pool.NeededSlabs(two, {1, 1}), 2);
  EXPECT_EQ(pool.NeededSlabs(two, {3, 5}), 4);
  std::vector<BlockRef> first = pool.Allocate(two.groups[0], 4);
  first.erase(first.begin());
  EXPECT_EQ(pool.NeededSlabs(two, {1, 8}), 2);
  EXPECT_EQ(pool.ReachableSlabs(two.id), 2);
  EXPECT_EQ(pool.SpareSlabs(two), 0);
  first.pop_back();
  EXPECT_EQ(pool.SpareSlabs(two), 1) << "two blocks in two slabs";
}

TEST(BlockPool, APublishedBlockIsCachedWhenNobodyHoldsIt) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = GroupOf(&pool, 256);
  std::vector<BlockRef> blocks = pool.Allocate(group, 3);
  const int64_t offset = blocks[1].offset();
  pool.Publish(blocks[1]);
  EXPECT_EQ(pool.bytes().cached, 0);
  blocks.clear();
  EXPECT_EQ(pool.bytes().used, 0);
  EXPECT_EQ(pool.bytes().cached, 256);
  EXPECT_EQ(pool.bytes().fragmented, 768);
  EXPECT_EQ(pool.AvailableBlocks(group), 15);
  EXPECT_EQ(pool.ReachableBlocks(group), 16);
  pool.CheckInvariants();
  {
    const BlockRef revived = pool.Revive(offset);
    EXPECT_EQ(revived.offset(), offset);
    EXPECT_EQ(pool.bytes().used, 256);
    EXPECT_EQ(pool.ReachableBlocks(group), 15);
    pool.CheckInvariants();
  }
  pool.Unpublish(offset);
  EXPECT_EQ(pool.bytes().free, 4096);
  EXPECT_EQ(pool.bytes().fragmented, 0) << "the slab went back";
  pool.CheckInvariants();
}

TEST(BlockPool, EvictsIdleSlabsFirstAndThenTheEmptiest) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const GroupId group = GroupOf(&pool, 256);
  std::vector<BlockRef> blocks = pool.Allocate(group, 12);  // slabs 0, 1, 2
  for (const size_t i : {0u, 1u, 4u, 5u, 6u, 8u, 9u, 10u, 11u}) {
    pool.Publish(blocks[i]);
  }
  blocks[0].Reset();  // slab 0: one cached, three used
  for (const size_t i : {4u, 5u, 6u}) blocks[i].Reset();  // slab 1: one used
  EXPECT_EQ(pool.EvictionChoice(group, 2), (std::vector<int64_t>{1536, 1280}))
      << "of the emptiest slab, the last ones";
  for (const size_t i : {8u, 9u, 10u, 11u}) blocks[i].Reset();
  EXPECT_EQ(pool.EvictionChoice(group, 1), (std::vector<int64_t>{2816}))
      << "of the idle slab";
}

TEST(BlockPool, TakesCachedSlabsOnlyFromModelsOverTheirFloor) {
  BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
  const PoolModel owner = pool.AddModel({.floor_bytes = 2048}, {512}).value();
  const GroupId taker = GroupOf(&pool, 1024);
  std::vector<BlockRef> blocks = pool.Allocate(owner.groups[0], 8);
  for (const BlockRef& block : blocks) pool.Publish(block);
  blocks.clear();
  EXPECT_EQ(pool.bytes().cached, 4096);
  EXPECT_EQ(pool.AvailableBlocks(taker), 0);
  EXPECT_EQ(pool.ReachableBlocks(taker), 2);
  for (int slab = 0; slab < 2; ++slab) {
    const std::vector<int64_t> choice = pool.EvictionChoice(taker, 1);
    EXPECT_EQ(choice, (std::vector<int64_t>{slab * 1024 + 512, slab * 1024}))
        << "the whole slab, least recently used first";
    for (const int64_t offset : choice) pool.Unpublish(offset);
  }
  EXPECT_THAT(pool.EvictionChoice(taker, 1), IsEmpty());
  EXPECT_EQ(pool.AvailableBlocks(taker), 2);
  EXPECT_EQ(pool.EvictionChoice(owner.groups[0], 1),
            (std::vector<int64_t>{2560}))
      << "its own are always its own";
  pool.CheckInvariants();
}

TEST(BlockPoolDeathTest, MustOutliveItsBlocks) {
  EXPECT_DEATH(
      {
        std::vector<BlockRef> blocks;
        BlockPool pool({.capacity_bytes = 4096, .slab_bytes = 1024});
        const GroupId group = GroupOf(&pool, 256);
        blocks = pool.Allocate(group, 1);
      },
      "1 blocks outlive their pool");
}

// Knows only who holds which bytes of the arena.
class NaivePool {
 public:
  // CHECKs by expectation that the block lies alone in one slab.
  void Hold(int64_t offset, int64_t bytes) {
    EXPECT_GE(offset, 0);
    EXPECT_LE(offset + bytes, kCapacity / kSlab * kSlab);
    EXPECT_EQ(offset / kSlab, (offset + bytes - 1) / kSlab);
    auto [held, is_new] = held_.emplace(offset, std::pair(bytes, 1));
    ASSERT_TRUE(is_new) << "offset " << offset << " is held already";
    if (held != held_.begin()) {
      const auto before = std::prev(held);
      EXPECT_LE(before->first + before->second.first, offset);
    }
    if (const auto after = std::next(held); after != held_.end()) {
      EXPECT_LE(offset + bytes, after->first);
    }
  }
  void Share(int64_t offset) { ++held_.at(offset).second; }
  void Free(int64_t offset) {
    if (--held_.at(offset).second == 0) held_.erase(offset);
  }

  int ref_count(int64_t offset) const { return held_.at(offset).second; }
  int64_t used_bytes() const {
    int64_t sum = 0;
    for (const auto& [offset, block] : held_) sum += block.first;
    return sum;
  }
  // Blocks of `bytes` that can be had: the rest of slabs that hold blocks of
  // this size only, and slabs that hold none.
  int64_t Available(int64_t bytes) const {
    int64_t sum = 0;
    for (int64_t slab = 0; slab < kCapacity / kSlab; ++slab) {
      int64_t free = kSlab / bytes;
      for (const auto& [offset, block] : held_) {
        if (offset / kSlab != slab) continue;
        free = block.first == bytes ? free - 1 : 0;
      }
      sum += free;
    }
    return sum;
  }

  static constexpr int64_t kSlab = 4096;
  static constexpr int64_t kCapacity = 20 * kSlab + 100;

 private:
  std::map<int64_t, std::pair<int64_t, int>> held_;  // offset: bytes, holders
};

TEST(BlockPool, AgreesWithANaiveModelOverRandomUse) {
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    NaivePool naive;
    BlockPool pool({.capacity_bytes = NaivePool::kCapacity,
                    .slab_bytes = NaivePool::kSlab});
    const int64_t sizes[] = {384, 1300, 4096};
    for (int64_t size : sizes) GroupOf(&pool, size);
    std::vector<BlockRef> held;
    for (int step = 0; step < 1000; ++step) {
      const uint32_t action = random() % 8;
      if (action < 3) {
        const auto group = static_cast<GroupId>(random() % 3);
        const int count = static_cast<int>(random() % 12);
        const int64_t bytes = sizes[group];
        const int64_t available = naive.Available(bytes);
        ASSERT_EQ(pool.AvailableBlocks(group), available);
        std::vector<BlockRef> blocks = pool.Allocate(group, count);
        ASSERT_THAT(
            blocks,
            SizeIs(count <= available ? static_cast<size_t>(count) : 0u));
        for (BlockRef& block : blocks) {
          naive.Hold(block.offset(), bytes);
          held.push_back(std::move(block));
        }
      } else if (!held.empty()) {
        const size_t pick = random() % held.size();
        const int64_t offset = held[pick].offset();
        ASSERT_EQ(held[pick].ref_count(), naive.ref_count(offset));
        if (action == 3) {
          naive.Share(offset);
          held.push_back(held[pick].Share());
        } else {
          naive.Free(offset);
          std::swap(held[pick], held.back());
          held.pop_back();
        }
      }
      pool.CheckInvariants();
      ASSERT_EQ(pool.bytes().used, naive.used_bytes());
      ASSERT_EQ(SumOf(pool.bytes()), NaivePool::kCapacity);
    }
    held.clear();
    pool.CheckInvariants();
    // Every slab went back: each group could have the whole pool again.
    for (GroupId group = 0; group < 3; ++group) {
      EXPECT_EQ(pool.AvailableBlocks(group), pool.TotalBlocks(group));
    }
    EXPECT_EQ(pool.bytes().free, 20 * NaivePool::kSlab);
  }
}

}  // namespace
}  // namespace headcount
