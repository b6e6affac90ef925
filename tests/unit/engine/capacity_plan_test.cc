// The planner's numbers against what they are about: a real pool, and the
// scheduler that admits sequences to it.
#include "heads/capacity_plan.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "heads/even_mask.h"
#include "heads/kv_geometry.h"
#include "kv/block_pool.h"
#include "tests/unit/engine/scheduler_driver.h"

namespace headcount {
namespace {

struct Case {
  const char* name;
  HeadLayoutSpec layout;
  PoolPlanSpec spec;
};

// SmolLM2-135M, whole; with every kind of group; and a model of two KvGroups.
std::vector<Case> Cases() {
  const HeadLayoutSpec whole = {.layers = std::vector(30, LayerShape{9, 3}),
                                .head_dim = 64};
  HeadLayoutSpec ragged = whole;
  ragged.mask.pruned = {{0, {0}}, {1, {3, 4, 5}}, {2, {0, 1, 2, 3, 4}}};
  for (int layer = 5; layer < 16; ++layer) {
    for (int head = 0; head < 9; ++head) {
      if (head % layer != 0) ragged.mask.pruned[layer].insert(head);
    }
  }
  HeadLayoutSpec half = whole;
  half.mask = EvenMask(whole.layers, 0.5);
  half.kv_dtype = KvDtype::kInt8;
  half.kv_head_rules = {{0, {{0, {KvDtype::kF16}}, {1, {KvDtype::kInt4}}}}};
  HeadLayoutSpec windows = whole;
  for (size_t l = 0; l < 30; l += 3) windows.layers[l].retention.window = 40;

  const PoolPlanSpec small = {.pool_bytes = int64_t{67} << 20,
                              .context_tokens = 64,
                              .watermark = 0.02,
                              .step_tokens = 8192};
  PoolPlanSpec even = small;
  even.context_tokens = 80;
  even.watermark = 0;
  PoolPlanSpec few = small;
  few.pool_bytes = int64_t{20} << 20;
  few.context_tokens = 304;
  return {{"whole", whole, small},
          {"ragged", ragged, small},
          {"ragged, few", ragged, few},
          {"half, int8", half, small},
          {"half, no watermark", half, even},
          {"windows", windows, small},
          {"windows, few", windows, few}};
}

HeadLayout LayoutOf(const Case& c) {
  absl::StatusOr<HeadLayout> layout = HeadLayout::Create(c.layout);
  EXPECT_TRUE(layout.ok()) << layout.status();
  return *std::move(layout);
}

PoolPlan PlanOf(const Case& c) {
  absl::StatusOr<PoolPlan> plan = PlanPool(LayoutOf(c), c.spec);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

std::vector<int64_t> BlockBytes(const PoolPlan& plan) {
  std::vector<int64_t> bytes;
  for (const KvGroupPlan& group : plan.groups) {
    bytes.push_back(group.block_bytes);
  }
  return bytes;
}

// Blocks for whole sequences until there are none.
int64_t Fill(const PoolPlan& plan, const PoolModel& model, BlockPool* pool,
             std::vector<BlockRef>* held) {
  for (int64_t sequences = 0;; ++sequences) {
    for (size_t g = 0; g < plan.groups.size(); ++g) {
      std::vector<BlockRef> blocks = pool->Allocate(
          model.groups[g], static_cast<int>(plan.groups[g].sequence_blocks));
      if (blocks.empty()) return sequences;
      for (BlockRef& block : blocks) held->push_back(std::move(block));
    }
  }
}

TEST(CapacityPlan, ARealPoolHoldsAsManySequences) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    const PoolPlan plan = PlanOf(c);
    BlockPool pool({.capacity_bytes = c.spec.pool_bytes,
                    .slab_bytes = SlabBytes(c.spec.pool_bytes)});
    const absl::StatusOr<PoolModel> model = pool.AddModel({}, BlockBytes(plan));
    ASSERT_TRUE(model.ok()) << model.status();
    std::vector<BlockRef> held;
    EXPECT_EQ(Fill(plan, *model, &pool, &held), plan.held);
    EXPECT_GE(plan.held, 2);
    EXPECT_LE(plan.held, plan.undivided);
    if (plan.groups.size() > 1) continue;
    const GroupId group = model->groups[0];
    EXPECT_EQ(pool.TotalBlocks(group),
              plan.slabs * plan.groups[0].blocks_per_slab);
    for (BlockRef& block :
         pool.Allocate(group, static_cast<int>(pool.AvailableBlocks(group)))) {
      held.push_back(std::move(block));
    }
    EXPECT_EQ(pool.bytes().reserved, plan.slab_end_bytes);
    EXPECT_EQ(pool.bytes().free, 0);
  }
}

DriverOptions DriverOf(const Case& c, const PoolPlan& plan) {
  DriverOptions options;
  options.slabs = plan.slabs;
  options.slab_bytes = plan.slab_bytes;
  options.scheduler = {.step_tokens = c.spec.step_tokens,
                       .watermark = c.spec.watermark,
                       .prefix_cache = false};
  options.models[0].block_bytes = BlockBytes(plan);
  for (const KvGroupPlan& group : plan.groups) {
    options.models[0].windows.push_back(group.retention.window);
  }
  options.models[0].max_logits_rows = 4096;
  return options;
}

TEST(CapacityPlan, TheSchedulerAdmitsAsManySequences) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    const PoolPlan plan = PlanOf(c);
    SchedulerDriver driver(DriverOf(c, plan));
    std::vector<RequestId> ids;
    // The last block of each has room for a few steps.
    const auto prompt = static_cast<int32_t>(c.spec.context_tokens) - 15;
    while (static_cast<int64_t>(ids.size()) < plan.undivided + 3) {
      ids.push_back(driver.Submit(prompt, 14));
    }
    int64_t most = 0;
    for (int step = 0; step < 12; ++step) {
      driver.Step();
      most = std::max<int64_t>(
          most, std::count_if(ids.begin(), ids.end(),
                              [&](RequestId id) { return driver.Runs(id); }));
    }
    EXPECT_GE(plan.admitted, 2);
    if (plan.groups.size() == 1) {
      EXPECT_EQ(most, plan.admitted);
    } else {  // which give blocks back while others come
      EXPECT_GE(most, plan.admitted);
      EXPECT_LE(most, plan.held);
    }
    driver.RunDry();
  }
}

}  // namespace
}  // namespace headcount
