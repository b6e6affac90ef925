#include "kv/prefix_cache.h"

#include <cstddef>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/kv/group_of.h"

namespace headcount {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

PrefixHashKey CountingKey() {
  PrefixHashKey key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::byte>(i);
  return key;
}

std::string Hex(const BlockHash& hash) {
  std::string hex;
  for (const std::byte byte : hash) {
    hex += "0123456789abcdef"[std::to_integer<int>(byte) >> 4];
    hex += "0123456789abcdef"[std::to_integer<int>(byte) & 15];
  }
  return hex;
}

// Of the reference implementation: vectors_sip128 in SipHash's vectors.h.
TEST(PrefixHasher, IsSipHashOf128Bits) {
  PrefixHasher hasher(CountingKey());
  EXPECT_EQ(Hex(hasher.Root("")), "a3817f04ba25a8e66df67214c7550293");
  EXPECT_EQ(Hex(hasher.Root(std::string(1, '\0'))),
            "da87c1d86b99af44347659119b22fc45");
  EXPECT_EQ(Hex(hasher.Root("")), "a3817f04ba25a8e66df67214c7550293");
}

TEST(PrefixHasher, DependsOnSaltKeyAndEveryTokenBefore) {
  PrefixHasher hasher(CountingKey());
  PrefixHasher other({});
  std::vector<int32_t> tokens(32);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto hash = [&](PrefixHasher* h, const char* salt) {
    const absl::Span<const int32_t> all(tokens);
    return h->Next(h->Next(h->Root(salt), all.first(16)), all.subspan(16));
  };
  const BlockHash first = hash(&hasher, "a");
  EXPECT_EQ(hash(&hasher, "a"), first);
  EXPECT_NE(hash(&hasher, "b"), first);
  EXPECT_NE(hash(&other, "a"), first);
  for (int32_t& token : tokens) {
    ++token;
    EXPECT_NE(hash(&hasher, "a"), first);
    --token;
  }
}

class PrefixCacheTest : public ::testing::Test {
 protected:
  // The first `count` hashes of a text.
  std::vector<BlockHash> Hashes(const char* salt, int count) {
    std::vector<BlockHash> hashes;
    BlockHash hash = hasher_.Root(salt);
    for (int32_t i = 0; i < count; ++i) {
      hash = hasher_.Next(hash, std::vector<int32_t>(16, i));
      hashes.push_back(hash);
    }
    return hashes;
  }

  std::vector<int64_t> PublishAll(GroupId group,
                                  const std::vector<BlockHash>& hashes) {
    const std::vector<BlockRef> blocks =
        pool_.Allocate(group, static_cast<int>(hashes.size()));
    std::vector<int64_t> offsets;
    for (size_t i = 0; i < hashes.size(); ++i) {
      cache_.Publish(group, hashes[i], blocks[i]);
      offsets.push_back(blocks[i].offset());
    }
    return offsets;
  }

  PrefixHasher hasher_{CountingKey()};
  BlockPool pool_{{.capacity_bytes = 4096, .slab_bytes = 1024}};
  PrefixCache cache_{&pool_};
  const GroupId group_ = GroupOf(&pool_, 256);
};

TEST_F(PrefixCacheTest, FindsTheBlocksOfACommonBeginning) {
  const std::vector<BlockHash> hashes = Hashes("", 5);
  const std::vector<int64_t> offsets =
      PublishAll(group_, {hashes.begin(), hashes.begin() + 3});
  const std::vector<BlockRef> found = cache_.Match(group_, hashes);
  ASSERT_THAT(found, SizeIs(3));
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(found[i].offset(), offsets[i]);
  EXPECT_EQ(pool_.bytes().used, 3 * 256);
  EXPECT_THAT(cache_.Match(group_, Hashes("other", 5)), IsEmpty());
  const GroupId other = GroupOf(&pool_, 256);
  EXPECT_THAT(cache_.Match(other, hashes), IsEmpty());
  cache_.CheckInvariants();
}

TEST_F(PrefixCacheTest, TheFirstBlockStandsForAHash) {
  const std::vector<BlockHash> hashes = Hashes("", 1);
  const std::vector<int64_t> first = PublishAll(group_, hashes);
  {
    const std::vector<BlockRef> held = cache_.Match(group_, hashes);
    EXPECT_NE(PublishAll(group_, hashes), first);
  }
  EXPECT_EQ(cache_.num_blocks(), 1);
  EXPECT_EQ(pool_.bytes().cached, 256) << "the second one is free again";
  EXPECT_EQ(cache_.Match(group_, hashes)[0].offset(), first[0]);
  cache_.CheckInvariants();
}

TEST_F(PrefixCacheTest, MakesRoomByWhatNobodyUses) {
  const std::vector<BlockHash> hashes = Hashes("", 16);
  PublishAll(group_, hashes);
  EXPECT_EQ(pool_.bytes().cached, 4096);
  std::vector<BlockRef> held =
      cache_.Match(group_, absl::MakeConstSpan(hashes).first(4));
  EXPECT_FALSE(cache_.MakeRoom(group_, 13));
  EXPECT_EQ(cache_.evictions(), 0u) << "evicted in vain";
  EXPECT_TRUE(cache_.MakeRoom(group_, 5));
  EXPECT_GE(pool_.AvailableBlocks(group_), 5);
  EXPECT_EQ(cache_.evictions(), 5u);
  cache_.CheckInvariants();
  const GroupId other = GroupOf(&pool_, 1024);
  EXPECT_TRUE(cache_.MakeRoom(other, 3)) << "all slabs but the one in use";
  EXPECT_THAT(cache_.Match(group_, hashes), SizeIs(4));
  cache_.CheckInvariants();
}

TEST_F(PrefixCacheTest, ForgetsAModelThatGoes) {
  const PoolModel model = pool_.AddModel({}, {512}).value();
  PublishAll(group_, Hashes("", 3));
  PublishAll(model.groups[0], Hashes("", 2));
  cache_.Forget(model.groups[0]);
  pool_.RemoveModel(model);
  EXPECT_EQ(cache_.num_blocks(), 3);
  const PoolModel next = pool_.AddModel({}, {512}).value();
  EXPECT_EQ(next.groups, model.groups) << "ids are used again";
  EXPECT_THAT(cache_.Match(next.groups[0], Hashes("", 2)), IsEmpty());
  cache_.CheckInvariants();
}

// Two runs of one trace differed after a model had gone.
TEST_F(PrefixCacheTest, ForgetsInTheSameOrderEachTime) {
  BlockPool other_pool({.capacity_bytes = pool_.capacity_bytes(),
                        .slab_bytes = pool_.slab_bytes()});
  PrefixCache other_cache(&other_pool);
  const auto after = [this](BlockPool* pool, PrefixCache* cache,
                            GroupId group) {
    const auto all = static_cast<int>(pool->AvailableBlocks(group));
    std::vector<BlockRef> blocks = pool->Allocate(group, all);
    const std::vector<BlockHash> hashes = Hashes("", all);
    for (size_t i = 0; i < blocks.size(); ++i) {
      cache->Publish(group, hashes[i], blocks[i]);
    }
    blocks.clear();
    cache->Forget(group);
    std::vector<int64_t> offsets;
    for (const BlockRef& block : pool->Allocate(group, all)) {
      offsets.push_back(block.offset());
    }
    return offsets;
  };
  EXPECT_EQ(after(&pool_, &cache_, group_),
            after(&other_pool, &other_cache, GroupOf(&other_pool, 256)));
}

}  // namespace
}  // namespace headcount
