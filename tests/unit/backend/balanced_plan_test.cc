#include "backend/balanced_plan.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

using ::testing::ElementsAreArray;

struct Batch {
  LayerHeads heads;
  std::vector<StepSequence> sequences;
};

LayerHeads Heads(const std::vector<int>& groups,
                 const Retention& retention = {}) {
  LayerHeads heads;
  int first = 0;
  for (const int group : groups) {
    heads.kv_heads.push_back({.index = static_cast<int>(heads.kv_heads.size()),
                              .first_query = first,
                              .num_queries = group,
                              .retention = retention});
    first += group;
  }
  return heads;
}

// `lengths`: {past, rows} of each.
std::vector<StepSequence> Sequences(
    const std::vector<std::pair<int, int>>& lengths) {
  std::vector<StepSequence> sequences;
  int row = 0;
  for (const auto& [past, rows] : lengths) {
    sequences.push_back(
        {.first_row = row, .num_rows = rows, .past = past, .block_begin = {0}});
    row += rows;
  }
  return sequences;
}

Batch RandomBatch(std::mt19937* random) {
  const auto below = [&](uint32_t n) {
    return static_cast<int>((*random)() % n);
  };
  std::vector<int> groups(static_cast<size_t>(1 + below(8)));
  for (int& group : groups) group = 1 + below(16);
  std::vector<std::pair<int, int>> lengths(static_cast<size_t>(1 + below(64)));
  const uint32_t longest = 16u << below(12);
  for (auto& [past, rows] : lengths) {
    past = below(longest);
    rows = below(4) == 0 ? 1 + below(300) : 1;
  }
  Retention retention;
  if (below(3) == 0) {
    retention = {.window = 1 + below(2000), .sink = 16 * below(8)};
  }
  return {.heads = Heads(groups, retention), .sequences = Sequences(lengths)};
}

// Items that share rows and a head, in the order of tokens, follow each other
// without a gap from the block of the first token seen to the last row's own.
// Where there is a sink, they start with it; the gap behind it ends where the
// block of the window's first token begins. No item goes across the end of the
// sink, unless all rows see all tokens.
void ExpectFollow(const std::vector<WorkItem>& items,
                  const Retention& retention, const StepSequence& sequence) {
  const WorkItem& first = items.front();
  const int row = first.first_row - sequence.first_row;
  const int64_t seen = retention.FirstSeen(sequence.past + row);
  const int64_t window = seen / kBlockTokens * kBlockTokens;
  const bool all_seen =
      retention.FirstSeen(items.back().kv_end - 1) <= retention.sink;
  ASSERT_EQ(first.kv_begin, retention.sink > 0 ? 0 : window);
  for (size_t i = 1; i < items.size(); ++i) {
    if (retention.sink > 0 && !all_seen &&
        items[i - 1].kv_end == retention.sink) {
      ASSERT_EQ(items[i].kv_begin, std::max<int64_t>(retention.sink, window));
    } else {
      ASSERT_EQ(items[i].kv_begin, items[i - 1].kv_end);
    }
    ASSERT_EQ(items[i].kv_begin % kBlockTokens, 0);
    ASSERT_EQ(items[i].merge, first.merge);
  }
  for (const WorkItem& item : items) {
    ASSERT_TRUE(all_seen || item.kv_begin >= retention.sink ||
                item.kv_end <= retention.sink);
  }
}

// Every row of every KV head sees every token that it attends to once.
void ExpectCovered(const Batch& batch, const BalancedPlan& plan) {
  std::map<std::tuple<int, int, int>, std::vector<WorkItem>> by_rows;
  const auto add = [&](const WorkItem& item) {
    by_rows[{item.sequence, item.kv_slot, item.first_row}].push_back(item);
  };
  for (const WorkItem& item : plan.decode) add(item);
  for (const WorkItem& item : plan.tiles) add(item);
  std::map<std::pair<int, int>, int64_t> rows_covered;
  for (auto& [key, items] : by_rows) {
    std::sort(items.begin(), items.end(),
              [](const WorkItem& a, const WorkItem& b) {
                return a.kv_begin < b.kv_begin;
              });
    const WorkItem& first = items.front();
    const StepSequence& sequence =
        batch.sequences[static_cast<size_t>(first.sequence)];
    const int row = first.first_row - sequence.first_row;
    const Retention retention =
        batch.heads.kv_heads[static_cast<size_t>(first.kv_slot)].retention;
    ExpectFollow(items, retention, sequence);
    ASSERT_EQ(items.back().kv_end, sequence.past + row + first.num_rows);
    ASSERT_EQ(items.size() > 1, first.merge >= 0);
    if (first.merge >= 0) {
      ASSERT_EQ(plan.merges[static_cast<size_t>(first.merge)].num_splits,
                static_cast<int>(items.size()));
    }
    rows_covered[{first.sequence, first.kv_slot}] += first.num_rows;
  }
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    for (size_t slot = 0; slot < batch.heads.kv_heads.size(); ++slot) {
      const auto rows =
          rows_covered[{static_cast<int>(s), static_cast<int>(slot)}];
      ASSERT_EQ(rows, batch.sequences[s].num_rows);
    }
  }
}

// Slots of unfinished results belong to one item each.
void ExpectPartialsDistinct(const Batch& batch, const BalancedPlan& plan) {
  std::vector<bool> taken(static_cast<size_t>(plan.num_partials));
  const auto take = [&](const WorkItem& item) {
    if (item.partial < 0) return;
    const int64_t results =
        int64_t{item.num_rows} *
        batch.heads.kv_heads[static_cast<size_t>(item.kv_slot)].num_queries;
    for (int64_t i = item.partial; i < item.partial + results; ++i) {
      ASSERT_LT(i, plan.num_partials);
      ASSERT_FALSE(taken[static_cast<size_t>(i)]);
      taken[static_cast<size_t>(i)] = true;
    }
  };
  for (const WorkItem& item : plan.decode) take(item);
  for (const WorkItem& item : plan.tiles) take(item);
}

std::vector<int64_t> Costs(const BalancedPlan& plan,
                           const BalancedPlanOptions& options) {
  std::vector<int64_t> costs;
  for (size_t w = 0; w + 1 < plan.worker_begin.size(); ++w) {
    int64_t cost = 0;
    for (int32_t i = plan.worker_begin[w]; i < plan.worker_begin[w + 1]; ++i) {
      const WorkItem& item = plan.decode[static_cast<size_t>(i)];
      cost += item.kv_end - item.kv_begin + options.item_cost;
    }
    costs.push_back(cost);
  }
  return costs;
}

// The bounds of the least limits that the batch is within.
BalancedPlanBounds BoundsFor(const Batch& batch,
                             const BalancedPlanOptions& options) {
  int64_t rows = 0;
  int64_t context = 0;
  for (const StepSequence& sequence : batch.sequences) {
    rows += sequence.num_rows;
    context = std::max<int64_t>(context, sequence.past + sequence.num_rows);
  }
  return BoundPlans(batch.heads, rows, context, options);
}

TEST(BalancedPlanTest, RandomBatchesAreCoveredAndBalanced) {
  std::mt19937 random(1);
  BalancedPlan plan;
  for (int round = 0; round < 10000; ++round) {
    const Batch batch = RandomBatch(&random);
    const BalancedPlanOptions options{
        .workers = 1 + static_cast<int32_t>(random() % 300)};
    PlanBalanced(batch.heads, batch.sequences, options, &plan);
    ASSERT_NO_FATAL_FAILURE(ExpectCovered(batch, plan)) << "round " << round;
    ASSERT_NO_FATAL_FAILURE(ExpectPartialsDistinct(batch, plan))
        << "round " << round;
    const BalancedPlanBounds bounds = BoundsFor(batch, options);
    ASSERT_LE(plan.num_partials, bounds.partials) << "round " << round;
    ASSERT_LE(static_cast<int64_t>(plan.merges.size()), bounds.merges)
        << "round " << round;
    ASSERT_EQ(plan.worker_begin.size(),
              static_cast<size_t>(options.workers) + 1);
    ASSERT_EQ(plan.worker_begin.back(),
              static_cast<int32_t>(plan.decode.size()));
    const std::vector<int64_t> costs = Costs(plan, options);
    int64_t total = 0;
    for (const int64_t cost : costs) total += cost;
    // No list costs more than a tenth over the mean and the dearest item that
    // is not cut: of less than two parts of the least length.
    const double mean = static_cast<double>(total) / options.workers;
    ASSERT_LE(
        static_cast<double>(*std::max_element(costs.begin(), costs.end())),
        1.1 * mean + 2 * options.min_tokens + options.item_cost)
        << "round " << round;
  }
}

TEST(BalancedPlanTest, LongWorkIsBalancedToATenth) {
  const LayerHeads heads = Heads({4, 4, 4, 4, 4, 4, 4, 4});
  BalancedPlan plan;
  for (const auto& [count, length] : std::vector<std::pair<int, int>>{
           {1, 32768}, {8, 32768}, {32, 4096}, {64, 2048}, {256, 1024}}) {
    const std::vector<StepSequence> sequences =
        Sequences(std::vector<std::pair<int, int>>(static_cast<size_t>(count),
                                                   {length - 1, 1}));
    const BalancedPlanOptions options{.workers = 264};
    PlanBalanced(heads, sequences, options, &plan);
    const std::vector<int64_t> costs = Costs(plan, options);
    int64_t total = 0;
    for (const int64_t cost : costs) total += cost;
    EXPECT_LE(
        static_cast<double>(*std::max_element(costs.begin(), costs.end())),
        1.1 * static_cast<double>(total) / options.workers)
        << count << " x " << length;
  }
}

TEST(BalancedPlanTest, FewTilesOfALongPromptAreSplit) {
  BalancedPlan plan;
  PlanBalanced(Heads({4}), Sequences({{8000, 32}}), {.workers = 100}, &plan);
  EXPECT_TRUE(plan.decode.empty());
  EXPECT_EQ(plan.merges.size(), 1u);
  EXPECT_GT(plan.tiles.size(), 10u);
}

// What is reserved is of use: a few times what a batch needs that is cut as
// often as can be, and no more for a longer context.
TEST(BalancedPlanTest, BoundsAreNear) {
  const BalancedPlanOptions options{.workers = 264};
  BalancedPlan plan;
  const Batch batch{Heads({4, 4, 4, 4, 4, 4, 4, 4}),
                    Sequences({{30000, 1024}, {60000, 1}, {60000, 1}})};
  PlanBalanced(batch.heads, batch.sequences, options, &plan);
  EXPECT_GT(plan.num_partials, 10000);
  const BalancedPlanBounds bounds = BoundsFor(batch, options);
  EXPECT_LT(bounds.partials, 4 * plan.num_partials);
  EXPECT_LT(bounds.merges, 4 * static_cast<int64_t>(plan.merges.size()));
  EXPECT_EQ(BoundPlans(batch.heads, 1026, 1 << 20, options).partials,
            bounds.partials);
  // Short ones are hardly cut.
  EXPECT_LE(BoundPlans(Heads({3}), 2, 100, options).partials, 2 * 3 * 3);
}

TEST(BalancedPlanTest, ReusesItsMemoryAndIsDeterministic) {
  std::mt19937 random(2);
  BalancedPlan reused;
  for (int round = 0; round < 50; ++round) {
    const Batch batch = RandomBatch(&random);
    BalancedPlan fresh;
    PlanBalanced(batch.heads, batch.sequences, {.workers = 7}, &fresh);
    PlanBalanced(batch.heads, batch.sequences, {.workers = 7}, &reused);
    EXPECT_THAT(reused.worker_begin, ElementsAreArray(fresh.worker_begin));
    ASSERT_EQ(reused.decode.size(), fresh.decode.size());
    for (size_t i = 0; i < fresh.decode.size(); ++i) {
      EXPECT_EQ(reused.decode[i].kv_end, fresh.decode[i].kv_end);
      EXPECT_EQ(reused.decode[i].partial, fresh.decode[i].partial);
    }
  }
}

TEST(BalancedPlanTest, NothingToDo) {
  BalancedPlan plan;
  PlanBalanced(LayerHeads(), Sequences({{5, 1}, {0, 9}}), {.workers = 3},
               &plan);
  EXPECT_TRUE(plan.decode.empty());
  EXPECT_TRUE(plan.tiles.empty());
  EXPECT_THAT(plan.worker_begin, ElementsAreArray({0, 0, 0, 0}));
}

}  // namespace
}  // namespace headcount
