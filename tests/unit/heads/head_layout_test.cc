#include "heads/head_layout.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Three layers of two groups of three query heads.
HeadLayoutSpec SmallSpec() {
  return {.layers = std::vector<LayerShape>(3, LayerShape{6, 2}),
          .head_dim = 16,
          .mask = {},
          .kv_dtype = KvDtype::kF16};
}

HeadLayout CreateOrDie(const HeadLayoutSpec& spec) {
  absl::StatusOr<HeadLayout> layout = HeadLayout::Create(spec);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *std::move(layout);
}

std::string ErrorOf(const HeadLayoutSpec& spec) {
  absl::StatusOr<HeadLayout> layout = HeadLayout::Create(spec);
  EXPECT_EQ(layout.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(layout.status().message());
}

TEST(HeadLayout, KeepsEveryHeadWithoutAMask) {
  const HeadLayout layout = CreateOrDie(SmallSpec());
  EXPECT_EQ(layout.query_heads(), 18);
  EXPECT_EQ(layout.kv_heads(), 6);
  EXPECT_EQ(layout.dense_query_heads(), 18);
  EXPECT_EQ(layout.dense_kv_heads(), 6);
  EXPECT_THAT(layout.layer_class(), ElementsAre(0, 0, 0));
  ASSERT_EQ(layout.groups().size(), 1u);
  EXPECT_EQ(layout.groups()[0].heads.size(), 6u);
  EXPECT_THAT(layout.layers()[1].query_heads, ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(HeadLayout, MakesRaggedGroupsAndDropsEmptiedOnes) {
  HeadLayoutSpec spec = SmallSpec();
  spec.mask.pruned[0] = {1, 3, 4};     // groups of 2 and 1
  spec.mask.pruned[1] = {0, 1, 2, 5};  // group 0 goes, group 1 keeps 2
  const HeadLayout layout = CreateOrDie(spec);

  const LayerHeads& ragged = layout.layers()[0];
  EXPECT_THAT(ragged.query_heads, ElementsAre(0, 2, 5));
  ASSERT_EQ(ragged.kv_heads.size(), 2u);
  EXPECT_EQ(ragged.kv_heads[0],
            (KvHead{.index = 0, .first_query = 0, .num_queries = 2}));
  EXPECT_EQ(ragged.kv_heads[1],
            (KvHead{.index = 1, .first_query = 2, .num_queries = 1}));

  const LayerHeads& one_group = layout.layers()[1];
  EXPECT_THAT(one_group.query_heads, ElementsAre(3, 4));
  ASSERT_EQ(one_group.kv_heads.size(), 1u);
  EXPECT_EQ(one_group.kv_heads[0],
            (KvHead{.index = 1, .first_query = 0, .num_queries = 2}));

  EXPECT_THAT(layout.groups()[0].heads,
              ElementsAre(KvHeadId{0, 0}, KvHeadId{0, 1}, KvHeadId{1, 0},
                          KvHeadId{2, 0}, KvHeadId{2, 1}));
  EXPECT_THAT(layout.layer_class(), ElementsAre(0, 1, 2));
  EXPECT_EQ(layout.query_heads(), 11);
  EXPECT_EQ(layout.dense_query_heads(), 18);
}

TEST(HeadLayout, AllowsLayersWithoutAnyHead) {
  HeadLayoutSpec spec = SmallSpec();
  spec.layers[2] = {0, 0};
  spec.mask.pruned[0] = {0, 1, 2, 3, 4, 5};
  const HeadLayout layout = CreateOrDie(spec);
  EXPECT_FALSE(layout.layers()[0].has_attention());
  EXPECT_TRUE(layout.layers()[1].has_attention());
  EXPECT_FALSE(layout.layers()[2].has_attention());
  // Emptied by the mask is not the same as empty from the start: the weights
  // of the former lie in the file.
  EXPECT_THAT(layout.layer_class(), ElementsAre(0, 1, 2));

  for (int layer : {0, 1}) {
    spec.mask.pruned[layer] = {0, 1, 2, 3, 4, 5};
  }
  EXPECT_THAT(CreateOrDie(spec).groups(), IsEmpty());
}

TEST(HeadLayout, AllowsAnotherShapeInEveryLayer) {
  HeadLayoutSpec spec;
  spec.layers = {{12, 3}, {16, 4}, {12, 3}, {8, 8}, {7, 1}};
  spec.head_dim = 64;
  const HeadLayout layout = CreateOrDie(spec);
  EXPECT_EQ(layout.query_heads(), 55);
  EXPECT_EQ(layout.kv_heads(), 19);
  EXPECT_THAT(layout.layer_class(), ElementsAre(0, 1, 0, 2, 3));
  EXPECT_EQ(layout.num_layer_classes(), 4);
}

// Layers 0 and 3 full, 1 with one window, 2 and 4 with another.
TEST(HeadLayout, GroupsKvHeadsByTheirWindow) {
  HeadLayoutSpec spec;
  spec.layers = {{4, 2},
                 {4, 2, {.window = 64}},
                 {4, 2, {.window = 8}},
                 {4, 2},
                 {4, 2, {.window = 8}}};
  spec.head_dim = 16;
  spec.mask.pruned[2] = {0, 1};
  const HeadLayout layout = CreateOrDie(spec);
  ASSERT_EQ(layout.groups().size(), 3u);
  EXPECT_TRUE(layout.groups()[0].retention.full());
  EXPECT_EQ(layout.groups()[1].retention.window, 64);
  EXPECT_EQ(layout.groups()[2].retention.window, 8);
  EXPECT_THAT(layout.groups()[0].heads,
              ElementsAre(KvHeadId{0, 0}, KvHeadId{0, 1}, KvHeadId{3, 0},
                          KvHeadId{3, 1}));
  EXPECT_THAT(layout.groups()[1].heads,
              ElementsAre(KvHeadId{1, 0}, KvHeadId{1, 1}));
  EXPECT_THAT(layout.groups()[2].heads,
              ElementsAre(KvHeadId{2, 0}, KvHeadId{4, 0}, KvHeadId{4, 1}));
  for (const KvGroup& group : layout.groups()) {
    for (const KvHeadId& id : group.heads) {
      const KvHead& head = layout.layers()[static_cast<size_t>(id.layer)]
                               .kv_heads[static_cast<size_t>(id.kv_slot)];
      EXPECT_EQ(&layout.groups()[static_cast<size_t>(head.group)], &group);
      EXPECT_EQ(head.retention, group.retention);
    }
  }
  // A plan serves layers of one window only.
  EXPECT_THAT(layout.layer_class(), ElementsAre(0, 1, 2, 0, 3));

  spec.layers = {{4, 2, {.window = 8}}, {4, 2, {.window = 8}}};
  spec.mask = {};
  EXPECT_EQ(CreateOrDie(spec).groups().size(), 1u);
  spec.layers[1].retention.window = -1;
  EXPECT_THAT(ErrorOf(spec), HasSubstr("layer 1: a window of -1"));
  for (const Retention& wrong :
       {Retention{.window = 8, .sink = -16}, Retention{.window = 8, .sink = 20},
        Retention{.window = 0, .sink = 16}}) {
    spec.layers[1].retention = wrong;
    EXPECT_THAT(ErrorOf(spec), HasSubstr("layer 1: a sink of "));
  }
}

// transformers: position t attends to positions > t - window.
TEST(Retention, SeesAsManyTokensAsTheWindowItselfIncluded) {
  const Retention window{.window = 8};
  EXPECT_EQ(window.FirstSeen(0), 0);
  EXPECT_EQ(window.FirstSeen(7), 0);
  EXPECT_EQ(window.FirstSeen(8), 1);
  EXPECT_EQ(window.FirstSeen(1000), 993);
  EXPECT_EQ(Retention{.window = 1}.FirstSeen(5), 5);
  EXPECT_EQ(Retention{}.FirstSeen(1000), 0);
}

TEST(HeadLayout, NamesTheLayerAndHeadThatDoNotExist) {
  HeadLayoutSpec spec = SmallSpec();
  spec.layers.resize(6, {6, 2});
  spec.mask.pruned = {{7, {}}};
  EXPECT_EQ(ErrorOf(spec),
            "heads.pruned: layer 7 does not exist; the model has 6 layers "
            "(0-5)");
  spec.mask.pruned = {{-1, {0}}};
  EXPECT_THAT(ErrorOf(spec), HasSubstr("layer -1 does not exist"));
  spec.mask.pruned = {{2, {0, 6}}};
  EXPECT_EQ(ErrorOf(spec),
            "heads.pruned: layer 2, head 6 does not exist; the layer has 6 "
            "query heads (0-5)");
  spec.mask.pruned = {{2, {-3}}};
  EXPECT_THAT(ErrorOf(spec), HasSubstr("layer 2, head -3 does not exist"));
  spec.layers[2] = {0, 0};
  spec.mask.pruned = {{2, {0}}};
  EXPECT_THAT(ErrorOf(spec), HasSubstr("the layer has no attention"));
}

TEST(HeadLayout, GivesKvHeadsDtypesOfTheirOwn) {
  HeadLayoutSpec spec = SmallSpec();
  spec.kv_dtype = KvDtype::kInt8;
  spec.kv_head_rules = {{0, {{1, {KvDtype::kF16}}}},
                        {2, {{0, {KvDtype::kInt4}}}}};
  spec.mask.pruned[2] = {0, 1, 2};  // KV head 0 of layer 2 goes
  const HeadLayout layout = CreateOrDie(spec);
  EXPECT_EQ(layout.layers()[0].kv_heads[0].dtype, KvDtype::kInt8);
  EXPECT_EQ(layout.layers()[0].kv_heads[1].dtype, KvDtype::kF16);
  EXPECT_EQ(layout.layers()[1].kv_heads[0].dtype, KvDtype::kInt8);
  ASSERT_EQ(layout.layers()[2].kv_heads.size(), 1u);
  EXPECT_EQ(layout.layers()[2].kv_heads[0].dtype, KvDtype::kInt8);
  // One plan serves layers whose heads are alike in this, too.
  EXPECT_THAT(layout.layer_class(), ElementsAre(0, 1, 2));
}

TEST(HeadLayout, PutsStreamingHeadsIntoAGroupOfTheirOwn) {
  HeadLayoutSpec spec = SmallSpec();
  const Retention streaming{.window = 256, .sink = 64};
  spec.kv_head_rules = {{0, {{1, {.retention = streaming}}}},
                        {2, {{0, {.retention = streaming}}}}};
  const HeadLayout layout = CreateOrDie(spec);
  ASSERT_EQ(layout.groups().size(), 2u);
  EXPECT_TRUE(layout.groups()[0].retention.full());
  EXPECT_EQ(layout.groups()[1].retention, streaming);
  EXPECT_EQ(layout.groups()[1].heads, (std::vector<KvHeadId>{{0, 1}, {2, 0}}));
  EXPECT_EQ(layout.layers()[0].kv_heads[0].group, 0);
  EXPECT_EQ(layout.layers()[0].kv_heads[1].group, 1);
  EXPECT_EQ(RulesOf(layout).at(0).at(1).retention, streaming);
  EXPECT_EQ(RulesOf(layout).at(0).at(0).retention, std::nullopt);
}

TEST(HeadLayout, LeavesWindowsOfTheModelAsTheyAre) {
  HeadLayoutSpec spec = SmallSpec();
  spec.layers[1].retention.window = 100;
  spec.kv_head_rules = {{1, {{0, {.retention = Retention{.window = 10}}}}}};
  EXPECT_THAT(ErrorOf(spec), HasSubstr("layer 1, KV head 0: the layer has a "
                                       "sliding window of 100 tokens"));
  spec.layers[1].retention.window = 0;
  spec.kv_head_rules = {
      {1, {{0, {.retention = Retention{.window = 10, .sink = 5}}}}}};
  EXPECT_THAT(ErrorOf(spec), HasSubstr("a sink of 5 tokens"));
}

TEST(HeadLayout, NamesTheKvHeadThatDoesNotExist) {
  HeadLayoutSpec spec = SmallSpec();
  spec.layers[2] = {0, 0};
  spec.kv_head_rules = {{3, {{0, {KvDtype::kInt8}}}}};
  EXPECT_EQ(ErrorOf(spec),
            "kv_cache.heads: layer 3 does not exist; the model has 3 layers "
            "(0-2)");
  spec.kv_head_rules = {{1, {{2, {KvDtype::kInt8}}}}};
  EXPECT_EQ(ErrorOf(spec),
            "kv_cache.heads: layer 1, KV head 2 does not exist; the layer has "
            "2 KV heads (0-1)");
  spec.kv_head_rules = {{2, {{0, {KvDtype::kInt8}}}}};
  EXPECT_THAT(ErrorOf(spec), HasSubstr("the layer has no attention"));
}

TEST(HeadLayout, RefusesImpossibleShapes) {
  for (LayerShape shape :
       {LayerShape{6, 4}, LayerShape{2, 4}, LayerShape{6, 0}, LayerShape{0, 2},
        LayerShape{-6, 2}, LayerShape{6, -2}, LayerShape{1 << 30, 1}}) {
    HeadLayoutSpec spec = SmallSpec();
    spec.layers[1] = shape;
    EXPECT_THAT(ErrorOf(spec), HasSubstr("layer 1"));
  }
  HeadLayoutSpec spec = SmallSpec();
  spec.head_dim = 0;
  EXPECT_THAT(ErrorOf(spec), HasSubstr("head_dim 0"));
  spec = SmallSpec();
  spec.layers.clear();
  EXPECT_THAT(ErrorOf(spec), HasSubstr("0 layers"));
}

// What DESIGN.md calls the exact meaning of a mask, written in another way.
TEST(HeadLayout, ServesEveryKeptQueryHeadByTheKvHeadOfItsGroup) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    HeadLayoutSpec spec;
    spec.head_dim = 2;
    const int num_layers = 1 + static_cast<int>(random() % 5);
    for (int layer = 0; layer < num_layers; ++layer) {
      const int kv_heads = static_cast<int>(random() % 5);
      const int group_size = 1 + static_cast<int>(random() % 4);
      spec.layers.push_back({kv_heads * group_size, kv_heads});
      for (int head = 0; head < kv_heads * group_size; ++head) {
        if (random() % 2 == 0) spec.mask.pruned[layer].insert(head);
      }
    }
    const HeadLayout layout = CreateOrDie(spec);
    int64_t query_heads = 0;
    int64_t kv_heads = 0;
    for (int layer = 0; layer < num_layers; ++layer) {
      const LayerShape shape = spec.layers[static_cast<size_t>(layer)];
      const LayerHeads& heads = layout.layers()[static_cast<size_t>(layer)];
      std::vector<int> served;
      for (const KvHead& kv : heads.kv_heads) {
        EXPECT_GE(kv.num_queries, 1);
        EXPECT_EQ(kv.first_query, static_cast<int>(served.size()));
        for (int i = 0; i < kv.num_queries; ++i) {
          const int head =
              heads.query_heads[static_cast<size_t>(kv.first_query + i)];
          EXPECT_EQ(head / (shape.query_heads / shape.kv_heads), kv.index);
          EXPECT_FALSE(spec.mask.pruned[layer].contains(head));
          served.push_back(head);
        }
      }
      EXPECT_EQ(served, heads.query_heads);
      EXPECT_TRUE(std::is_sorted(served.begin(), served.end()));
      EXPECT_EQ(served.size() + spec.mask.pruned[layer].size(),
                static_cast<size_t>(shape.query_heads));
      query_heads += static_cast<int64_t>(served.size());
      kv_heads += static_cast<int64_t>(heads.kv_heads.size());
    }
    EXPECT_EQ(layout.query_heads(), query_heads);
    EXPECT_EQ(layout.kv_heads(), kv_heads);
  }
}

}  // namespace
}  // namespace headcount
