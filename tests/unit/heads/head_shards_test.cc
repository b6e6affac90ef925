#include "heads/head_shards.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace headcount {
namespace {

HeadLayout LayoutOf(const HeadLayoutSpec& spec) {
  return HeadLayout::Create(spec).value();
}

// What each GPU holds.
std::vector<HeadLayout> Dealt(const HeadLayoutSpec& spec, int gpus) {
  std::vector<HeadLayout> out;
  for (const HeadMask& mask : DealHeads(LayoutOf(spec), gpus)) {
    HeadLayoutSpec shard = spec;
    shard.mask = mask;
    out.push_back(LayoutOf(shard));
  }
  return out;
}

TEST(HeadShards, AWholeModelIsDividedEvenly) {
  // Llama-3.1-70B.
  const HeadLayoutSpec spec{.layers = std::vector(80, LayerShape{64, 8}),
                            .head_dim = 128};
  for (const int gpus : {1, 2, 4, 8}) {
    const std::vector<HeadLayout> shards = Dealt(spec, gpus);
    ASSERT_EQ(shards.size(), static_cast<size_t>(gpus));
    for (const HeadLayout& shard : shards) {
      for (const LayerHeads& layer : shard.layers()) {
        EXPECT_EQ(layer.kv_heads.size(), static_cast<size_t>(8 / gpus));
        EXPECT_EQ(layer.query_heads.size(), static_cast<size_t>(64 / gpus));
      }
    }
  }
}

TEST(HeadShards, MoreGpusThanKvHeadsLeaveSomeWithoutWork) {
  // Falcon-7B has one KV head a layer: a layer's is never in two places, and
  // the layers take turns.
  const HeadLayoutSpec spec{.layers = std::vector(32, LayerShape{71, 1}),
                            .head_dim = 64};
  for (const HeadLayout& shard : Dealt(spec, 4)) {
    EXPECT_EQ(shard.kv_heads(), 8);
    EXPECT_EQ(shard.query_heads(), 8 * 71);
  }
}

TEST(HeadShards, RaggedGroupsEvenOut) {
  // Groups of 4, 1, 3 and 2 query heads: 5 each.
  HeadLayoutSpec spec{.layers = {{16, 4}}, .head_dim = 64};
  spec.mask.pruned[0] = {4, 5, 6, 11, 14, 15};
  for (const HeadLayout& shard : Dealt(spec, 2)) {
    EXPECT_EQ(shard.kv_heads(), 2);
    EXPECT_EQ(shard.query_heads(), 5);
  }
}

// A random mask of 6 layers of {12, 4}, and random dtypes.
HeadLayoutSpec RandomSpec(std::mt19937& random) {
  HeadLayoutSpec spec{.layers = std::vector(6, LayerShape{12, 4}),
                      .head_dim = 64};
  for (int layer = 0; layer < 6; ++layer) {
    for (int head = 0; head < 12; ++head) {
      if (random() % 3 == 0) spec.mask.pruned[layer].insert(head);
    }
    for (int head = 0; head < 4; ++head) {
      if (random() % 2 == 0)
        spec.kv_head_rules[layer][head].dtype = KvDtype::kInt8;
    }
  }
  return spec;
}

TEST(HeadShards, EveryHeadIsOnOneGpuAndNoLayerIsUneven) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 300; ++trial) {
    const HeadLayoutSpec spec = RandomSpec(random);
    const HeadLayout whole = LayoutOf(spec);
    const std::vector<HeadLayout> shards =
        Dealt(spec, static_cast<int>(1 + random() % 6));
    for (size_t l = 0; l < whole.layers().size(); ++l) {
      std::vector<int> queries;
      size_t most = 0;
      size_t fewest = 4;
      for (const HeadLayout& shard : shards) {
        const LayerHeads& layer = shard.layers()[l];
        queries.insert(queries.end(), layer.query_heads.begin(),
                       layer.query_heads.end());
        most = std::max(most, layer.kv_heads.size());
        fewest = std::min(fewest, layer.kv_heads.size());
      }
      std::sort(queries.begin(), queries.end());
      EXPECT_EQ(queries, whole.layers()[l].query_heads);
      EXPECT_LE(most, fewest + 1);
    }
  }
}

}  // namespace
}  // namespace headcount
