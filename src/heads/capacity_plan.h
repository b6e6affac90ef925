// How many sequences a KV pool holds at once: what BlockPool and Scheduler will
// do, as arithmetic, before there is a pool. Sizes are those of KvGeometry, and
// slabs, blocks and the watermark those of the functions that the pool and the
// scheduler call, so that plan and allocator cannot disagree.
//
//   absl::StatusOr<PoolPlan> plan = PlanPool(
//       layout, {.pool_bytes = int64_t{80} << 30, .context_tokens = 32768});
//   plan->admitted;  // sequences of 32,768 tokens
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/status/statusor.h"
#include "heads/head_layout.h"
#include "heads/kv_group.h"

namespace headcount {

struct PoolPlanSpec {
  int64_t pool_bytes = 0;
  int64_t context_tokens = 0;  // of every sequence, in its cache; at least 1
  double watermark = 0.01;     // 0 to 1, as SchedulerOptions::watermark
  int32_t step_tokens = 256;   // as SchedulerOptions::step_tokens
};

// Where no KV head is kept, a sequence needs no memory of the pool.
inline constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// One of HeadLayout::groups().
struct KvGroupPlan {
  Retention retention;
  int64_t kv_heads = 0;
  int64_t block_bytes = 0;
  int64_t blocks_per_slab = 0;
  // Of a sequence that has all of its context, when its next token is computed;
  // and those that it is admitted with. More than the former only where a
  // window gives blocks back.
  int64_t sequence_blocks = 0;
  int64_t admission_blocks = 0;
};

// For one model that has the pool to itself.
struct PoolPlan {
  std::vector<KvGroupPlan> groups;
  int64_t pool_bytes = 0;
  int64_t slab_bytes = 0;
  int64_t slabs = 0;
  int64_t kv_bytes_per_token = 0;  // of all KV heads
  int64_t sequence_bytes = 0;      // whole blocks

  // Sequences with all of their context, at once:
  int64_t admitted = 0;  // so many are let in, if all come together
  int64_t held = 0;      // so many fit once they have grown: no watermark
  int64_t undivided =
      0;  // pool_bytes / sequence_bytes: no ends of slabs either

  // Bytes that hold no block when the pool is full: ends of slabs and of the
  // pool. BlockPool calls them reserved.
  int64_t slab_end_bytes = 0;
  // Bytes that admission leaves free.
  int64_t watermark_bytes = 0;
};

// A model that BlockPool::AddModel refuses (a block larger than a slab, fewer
// slabs than groups) has 0 sequences. InvalidArgument when a size overflows.
absl::StatusOr<PoolPlan> PlanPool(const HeadLayout& layout,
                                  const PoolPlanSpec& spec);

}  // namespace headcount
