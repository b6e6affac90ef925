#include "heads/capacity_plan.h"

#include <vector>

#include "gtest/gtest.h"
#include "heads/even_mask.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

HeadLayout LayoutOf(HeadLayoutSpec spec) {
  absl::StatusOr<HeadLayout> layout = HeadLayout::Create(spec);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *std::move(layout);
}

// Llama-3.1-8B.
HeadLayoutSpec Llama() {
  return {.layers = std::vector(32, LayerShape{32, 8}), .head_dim = 128};
}

PoolPlan PlanOf(const HeadLayout& layout, const PoolPlanSpec& spec) {
  absl::StatusOr<PoolPlan> plan = PlanPool(layout, spec);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

TEST(PlanPool, CountsSlabsEndsAndWatermark) {
  // A block is 16 x 131,072 B = 2 MiB: 32 fill a slab of 64 MiB, none is lost.
  const PoolPlan plan = PlanOf(
      LayoutOf(Llama()), {.pool_bytes = 16 * kGiB, .context_tokens = 8192});
  EXPECT_EQ(plan.kv_bytes_per_token, 131072);
  EXPECT_EQ(plan.slab_bytes, int64_t{64} << 20);
  EXPECT_EQ(plan.slabs, 256);
  ASSERT_EQ(plan.groups.size(), 1u);
  EXPECT_EQ(plan.groups[0].blocks_per_slab, 32);
  EXPECT_EQ(plan.groups[0].sequence_blocks, 512);
  EXPECT_EQ(plan.groups[0].admission_blocks, 512);
  EXPECT_EQ(plan.sequence_bytes, kGiB);
  EXPECT_EQ(plan.slab_end_bytes, 0);
  EXPECT_EQ(plan.undivided, 16);
  EXPECT_EQ(plan.held, 16);
  // 82 of 8,192 blocks stay free: one of the sixteen waits.
  EXPECT_EQ(plan.watermark_bytes, 82 * (int64_t{2} << 20));
  EXPECT_EQ(plan.admitted, 15);
}

TEST(PlanPool, EndsOfSlabsAreLost) {
  // 3 of 8 groups: a block is 786,432 B, 85 fill a slab but for 262,144 B.
  HeadLayoutSpec spec = Llama();
  spec.mask = EvenMask(spec.layers, 3.0 / 8);
  const PoolPlan plan =
      PlanOf(LayoutOf(spec), {.pool_bytes = 16 * kGiB, .context_tokens = 16});
  EXPECT_EQ(plan.kv_bytes_per_token, 49152);
  EXPECT_EQ(plan.groups[0].blocks_per_slab, 85);
  EXPECT_EQ(plan.slab_end_bytes, 256 * int64_t{262144});
  EXPECT_EQ(plan.held, 256 * 85);
  EXPECT_EQ(plan.undivided, 21845);  // 2^34 / 786,432
}

TEST(PlanPool, TheFirstSequenceDoesWithoutTheWatermark) {
  const HeadLayout layout = LayoutOf(Llama());
  PoolPlanSpec spec{.pool_bytes = kGiB, .context_tokens = 8192};
  EXPECT_EQ(PlanOf(layout, spec).admitted, 1);
  spec.context_tokens = 8193;
  EXPECT_EQ(PlanOf(layout, spec).admitted, 0);
  EXPECT_EQ(PlanOf(layout, spec).held, 0);
}

TEST(PlanPool, AWindowHoldsItsTokensAndABlockAtEachEnd) {
  // Mistral-7B-v0.1: of 32,768 tokens the last 4,096, 257 blocks at worst.
  HeadLayoutSpec spec = Llama();
  for (LayerShape& layer : spec.layers) layer.retention.window = 4096;
  const PoolPlan plan = PlanOf(
      LayoutOf(spec), {.pool_bytes = 16 * kGiB, .context_tokens = 32768});
  EXPECT_EQ(plan.groups[0].sequence_blocks, 257);
  EXPECT_EQ(plan.groups[0].admission_blocks, 273);  // a step of 256 beside it
  EXPECT_EQ(plan.sequence_bytes, 257 * (int64_t{2} << 20));
  EXPECT_EQ(plan.held, 31);
  EXPECT_EQ(plan.admitted, 29);  // 29 x 273 + 82 <= 8,192
}

TEST(PlanPool, GroupsShareTheSlabs) {
  // Every other layer has a window of 64: two groups of 16 layers, each of
  // 1 MiB a block.
  HeadLayoutSpec spec = Llama();
  for (size_t l = 0; l < 32; l += 2) spec.layers[l].retention.window = 64;
  const PoolPlan plan =
      PlanOf(LayoutOf(spec),
             {.pool_bytes = 16 * kGiB, .context_tokens = 8192, .watermark = 0});
  ASSERT_EQ(plan.groups.size(), 2u);
  EXPECT_EQ(plan.groups[0].sequence_blocks, 512);
  EXPECT_EQ(plan.groups[1].sequence_blocks, 5);
  // Of 256 slabs of 64 blocks, 31 sequences have 248 and ceil(155 / 64) = 3;
  // a 32nd would need 256 and 3. Let in with 21 blocks of the window each, the
  // 31st would need 248 and 11.
  EXPECT_EQ(plan.held, 31);
  EXPECT_EQ(plan.groups[1].admission_blocks, 21);
  EXPECT_EQ(plan.admitted, 30);
}

TEST(PlanPool, WhatThePoolRefusesHasNoSequences) {
  // A block of 2 MiB x 4 (f32, MHA) does not fit a slab of a 1 GiB pool.
  HeadLayoutSpec spec = Llama();
  for (LayerShape& layer : spec.layers) layer = {32, 32};
  const PoolPlan plan =
      PlanOf(LayoutOf(spec), {.pool_bytes = 64 << 20, .context_tokens = 16});
  EXPECT_EQ(plan.groups[0].blocks_per_slab, 0);
  EXPECT_EQ(plan.held, 0);
  EXPECT_EQ(plan.admitted, 0);
}

TEST(PlanPool, WithoutKvHeadsMemoryIsNoLimit) {
  HeadLayoutSpec spec = Llama();
  spec.mask = EvenMask(spec.layers, 0);
  const PoolPlan plan =
      PlanOf(LayoutOf(spec), {.pool_bytes = kGiB, .context_tokens = 8192});
  EXPECT_EQ(plan.kv_bytes_per_token, 0);
  EXPECT_EQ(plan.admitted, kNoLimit);
}

TEST(EvenMask, TakesWholeGroupsFromAllLayersAlike) {
  const std::vector<LayerShape> layers(32, LayerShape{32, 8});
  for (const int kept : {256, 192, 160, 128, 26, 0}) {
    HeadLayoutSpec spec = Llama();
    spec.mask = EvenMask(layers, kept / 256.0);
    const HeadLayout layout = LayoutOf(spec);
    EXPECT_EQ(layout.kv_heads(), kept);
    EXPECT_EQ(layout.query_heads(), kept * 4);
    for (const LayerHeads& layer : layout.layers()) {
      EXPECT_LE(layer.kv_heads.size(), static_cast<size_t>(kept / 32 + 1));
      EXPECT_GE(layer.kv_heads.size(), static_cast<size_t>(kept / 32));
    }
  }
}

TEST(EvenMask, LeavesLayersWithoutAttentionAlone) {
  std::vector<LayerShape> layers = {{12, 3}, {0, 0}, {8, 1}};
  const HeadMask mask = EvenMask(layers, 0.5);
  const HeadLayout layout =
      LayoutOf({.layers = layers, .head_dim = 64, .mask = mask});
  EXPECT_EQ(layout.kv_heads(), 2);
  EXPECT_TRUE(EvenMask(layers, 1).empty());
  EXPECT_TRUE(EvenMask({{0, 0}}, 0).empty());
}

}  // namespace
}  // namespace headcount
