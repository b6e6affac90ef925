#include "heads/capacity_plan.h"

#include <algorithm>

#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

int64_t DivideUp(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

// Blocks of each group that one sequence takes.
using BlocksOf = int64_t KvGroupPlan::*;

int64_t GroupSlabs(const KvGroupPlan& group, BlocksOf blocks,
                   int64_t sequences) {
  return DivideUp(sequences * (group.*blocks), group.blocks_per_slab);
}

int64_t Slabs(const PoolPlan& plan, BlocksOf blocks, int64_t sequences) {
  int64_t slabs = 0;
  for (const KvGroupPlan& group : plan.groups) {
    slabs += GroupSlabs(group, blocks, sequences);
  }
  return slabs;
}

// Whether Scheduler::Admit lets one more in beside `sequences`: it has blocks
// for all groups, and leaves the watermark of each, unless nothing runs.
bool Admits(const PoolPlan& plan, double watermark, int64_t sequences) {
  constexpr BlocksOf kBlocks = &KvGroupPlan::admission_blocks;
  if (Slabs(plan, kBlocks, sequences + 1) > plan.slabs) return false;
  if (sequences == 0) return true;
  const int64_t free_slabs = plan.slabs - Slabs(plan, kBlocks, sequences);
  return std::all_of(
      plan.groups.begin(), plan.groups.end(), [&](const KvGroupPlan& group) {
        const int64_t reachable =
            (GroupSlabs(group, kBlocks, sequences) + free_slabs) *
                group.blocks_per_slab -
            sequences * group.admission_blocks;
        return reachable - group.admission_blocks >=
               WatermarkBlocks(watermark, plan.slabs * group.blocks_per_slab);
      });
}

// The most for which `possible`, which is so up to some number of sequences.
template <typename Possible>
int64_t MostSequences(int64_t bound, const Possible& possible) {
  int64_t low = 0;
  int64_t high = bound;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (possible(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

absl::StatusOr<KvGroupPlan> PlanGroup(const HeadLayout& layout, int index,
                                      int64_t slab_bytes,
                                      const PoolPlanSpec& spec) {
  const absl::StatusOr<KvGeometry> geometry = KvGeometry::Create(layout, index);
  if (!geometry.ok()) return geometry.status();
  const KvGroup& group = layout.groups()[static_cast<size_t>(index)];
  const int64_t blocks = KvGeometry::BlocksFor(spec.context_tokens);
  const auto at_most = [&](int64_t step_tokens) {
    return std::min(blocks,
                    KvGeometry::MostBlocks(group.retention, step_tokens));
  };
  return KvGroupPlan{
      .retention = group.retention,
      .kv_heads = static_cast<int64_t>(group.heads.size()),
      .block_bytes = geometry->block_bytes(),
      .blocks_per_slab = BlocksPerSlab(slab_bytes, geometry->block_bytes()),
      .sequence_blocks = at_most(1),
      .admission_blocks = at_most(spec.step_tokens)};
}

void CountSequences(double watermark, PoolPlan* plan) {
  const bool fits = std::all_of(
      plan->groups.begin(), plan->groups.end(),
      [](const KvGroupPlan& group) { return group.blocks_per_slab > 0; });
  if (!fits || plan->slabs < static_cast<int64_t>(plan->groups.size())) return;
  constexpr BlocksOf kHeld = &KvGroupPlan::sequence_blocks;
  plan->held = MostSequences(plan->undivided, [&](int64_t sequences) {
    return Slabs(*plan, kHeld, sequences) <= plan->slabs;
  });
  plan->admitted = MostSequences(plan->held, [&](int64_t sequences) {
    return Admits(*plan, watermark, sequences - 1);
  });
  for (const KvGroupPlan& group : plan->groups) {
    // All of the pool where there is but one group, which can have it all.
    const int64_t slabs = plan->groups.size() == 1
                              ? plan->slabs
                              : GroupSlabs(group, kHeld, plan->held);
    const int64_t blocks = slabs * group.blocks_per_slab;
    plan->slab_end_bytes +=
        slabs * plan->slab_bytes - blocks * group.block_bytes;
    plan->watermark_bytes +=
        WatermarkBlocks(watermark, blocks) * group.block_bytes;
  }
}

}  // namespace

absl::StatusOr<PoolPlan> PlanPool(const HeadLayout& layout,
                                  const PoolPlanSpec& spec) {
  CHECK(spec.pool_bytes >= 0) << spec.pool_bytes << " bytes";
  CHECK(spec.context_tokens >= 1) << spec.context_tokens << " tokens";
  PoolPlan plan{.groups = {},
                .pool_bytes = spec.pool_bytes,
                .slab_bytes = SlabBytes(spec.pool_bytes)};
  plan.slabs = plan.pool_bytes / plan.slab_bytes;
  const absl::StatusOr<int64_t> token_bytes = KvBytesPerToken(layout);
  if (!token_bytes.ok()) return token_bytes.status();
  plan.kv_bytes_per_token = *token_bytes;
  for (size_t i = 0; i < layout.groups().size(); ++i) {
    const absl::StatusOr<KvGroupPlan> group =
        PlanGroup(layout, static_cast<int>(i), plan.slab_bytes, spec);
    if (!group.ok()) return group.status();
    plan.groups.push_back(*group);
    plan.sequence_bytes += group->sequence_blocks * group->block_bytes;
  }
  plan.slab_end_bytes = plan.pool_bytes % plan.slab_bytes;
  if (plan.groups.empty()) {
    plan.admitted = plan.held = plan.undivided = kNoLimit;
    return plan;
  }
  plan.undivided = plan.pool_bytes / plan.sequence_bytes;
  CountSequences(spec.watermark, &plan);
  return plan;
}

}  // namespace headcount
