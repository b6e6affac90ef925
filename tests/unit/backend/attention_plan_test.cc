#include "backend/attention_plan.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "heads/kv_geometry.h"
#include "tests/unit/backend/random_floats.h"

namespace headcount {
namespace {

// Groups of the given sizes, one for each KV head.
LayerHeads RaggedHeads(const std::vector<int>& group_sizes,
                       const Retention& retention = {}) {
  LayerHeads heads;
  int query = 0;
  for (const int size : group_sizes) {
    KvHead head;
    head.index = static_cast<int>(heads.kv_heads.size());
    head.first_query = query;
    head.num_queries = size;
    head.retention = retention;
    heads.kv_heads.push_back(head);
    for (int i = 0; i < size; ++i) heads.query_heads.push_back(query++);
  }
  return heads;
}

std::vector<StepSequence> RandomSequences(TestRandom& random, int count) {
  std::vector<StepSequence> sequences;
  int32_t row = 0;
  for (int i = 0; i < count; ++i) {
    StepSequence sequence;
    sequence.first_row = row;
    sequence.num_rows = RandomInt(random, 0, 2) == 0 ? RandomInt(random, 1, 70)
                                                     : RandomInt(random, 1, 2);
    sequence.past =
        RandomInt(random, 0, 1) == 0 ? 0 : RandomInt(random, 0, 900);
    row += sequence.num_rows;
    sequences.push_back(sequence);
  }
  return sequences;
}

// How often (row, kv slot, token) is walked; the query heads of a slot go
// together.
using Coverage = std::map<std::tuple<int, int, int>, int>;

Coverage VisibleTokens(const LayerHeads& heads,
                       const std::vector<StepSequence>& sequences) {
  Coverage coverage;
  for (const StepSequence& sequence : sequences) {
    for (int row = 0; row < sequence.num_rows; ++row) {
      for (size_t slot = 0; slot < heads.kv_heads.size(); ++slot) {
        const Retention& retention = heads.kv_heads[slot].retention;
        const int end = sequence.past + row + 1;
        for (int token = 0; token < end; ++token) {
          if (retention.window > 0 && token >= retention.sink &&
              token < end - retention.window) {
            continue;
          }
          coverage[{sequence.first_row + row, static_cast<int>(slot), token}] =
              1;
        }
      }
    }
  }
  return coverage;
}

Coverage PlannedTokens(const AttentionPlan& plan, const Retention& retention,
                       const std::vector<StepSequence>& sequences) {
  Coverage coverage;
  for (const WorkItem& item : plan.items) {
    const StepSequence& sequence =
        sequences[static_cast<size_t>(item.sequence)];
    for (int row = item.first_row; row < item.first_row + item.num_rows;
         ++row) {
      const int position = sequence.past + row - sequence.first_row;
      const int end = std::min(item.kv_end, position + 1);
      const bool windowed =
          retention.window > 0 && item.kv_begin >= retention.sink;
      const int first = windowed ? position + 1 - retention.window : 0;
      for (int token = std::max(item.kv_begin, first); token < end; ++token) {
        ++coverage[{row, item.kv_slot, token}];
      }
    }
  }
  return coverage;
}

TEST(AttentionPlanTest, CoversEveryVisibleTokenExactlyOnce) {
  TestRandom random(1);
  AttentionPlan plan;
  for (int round = 0; round < 60; ++round) {
    std::vector<int> groups;
    for (int i = RandomInt(random, 1, 4); i > 0; --i) {
      groups.push_back(RandomInt(random, 1, 5));
    }
    Retention retention;
    retention.window = RandomInt(random, 0, 1) * RandomInt(random, 1, 400);
    if (!retention.full()) retention.sink = 16 * RandomInt(random, 0, 6);
    const LayerHeads heads = RaggedHeads(groups, retention);
    const std::vector<StepSequence> sequences =
        RandomSequences(random, RandomInt(random, 1, 5));
    AttentionPlanOptions options;
    options.chunk_tokens = kBlockTokens * RandomInt(random, 1, 20);
    options.tile_rows = RandomInt(random, 1, 33);
    options.max_split_rows = RandomInt(random, 0, 8);
    PlanAttention(heads, sequences, options, &plan);
    EXPECT_EQ(plan.chunk_tokens, options.chunk_tokens);
    EXPECT_EQ(PlannedTokens(plan, retention, sequences),
              VisibleTokens(heads, sequences));
  }
}

// Every split is one chunk, its slots overlap no other's, and the merge finds
// them in the order of tokens.
TEST(AttentionPlanTest, MergesNameTheSplitsOfTheirRowsInTokenOrder) {
  TestRandom random(2);
  AttentionPlan plan;
  for (int round = 0; round < 60; ++round) {
    const LayerHeads heads = RaggedHeads({3, 1, 2});
    const std::vector<StepSequence> sequences = RandomSequences(random, 4);
    AttentionPlanOptions options;
    options.chunk_tokens = 64;
    options.max_split_rows = RandomInt(random, 0, 16);
    PlanAttention(heads, sequences, options, &plan);
    std::map<int, const WorkItem*> by_slot;
    int64_t slots = 0;
    for (const WorkItem& item : plan.items) {
      if (item.partial < 0) {
        EXPECT_EQ(item.kv_begin, 0);
        continue;
      }
      EXPECT_LE(item.num_rows, options.max_split_rows);
      EXPECT_EQ(item.kv_begin % options.chunk_tokens, 0);
      EXPECT_LE(item.kv_end - item.kv_begin, options.chunk_tokens);
      by_slot[item.partial] = &item;
    }
    for (const MergeItem& merge : plan.merges) {
      const int queries =
          merge.num_rows *
          heads.kv_heads[static_cast<size_t>(merge.kv_slot)].num_queries;
      EXPECT_GT(merge.num_splits, 1);
      for (int split = 0; split < merge.num_splits; ++split) {
        const auto it = by_slot.find(merge.first_partial + split * queries);
        ASSERT_NE(it, by_slot.end());
        EXPECT_EQ(it->second->kv_slot, merge.kv_slot);
        EXPECT_EQ(it->second->first_row, merge.first_row);
        EXPECT_EQ(it->second->num_rows, merge.num_rows);
        EXPECT_EQ(it->second->kv_begin, split * options.chunk_tokens);
        by_slot.erase(it);
        slots += queries;
      }
    }
    EXPECT_TRUE(by_slot.empty());
    EXPECT_EQ(slots, plan.num_partials);
  }
}

// Nothing is walked that lies in a block before the window of an item's first
// row, because that block may have been given back.
TEST(AttentionPlanTest, ItemsBeginAtTheFirstBlockOfTheWindow) {
  AttentionPlan plan;
  StepSequence decode;
  decode.num_rows = 1;
  decode.past = 9999;
  const LayerHeads heads = RaggedHeads({2}, {.window = 100});
  PlanAttention(heads, {decode}, {}, &plan);
  ASSERT_EQ(plan.items.size(), 1u);
  EXPECT_EQ(plan.items[0].kv_begin, 9900 / 16 * 16);
  EXPECT_EQ(plan.items[0].kv_end, 10000);

  StepSequence prompt;
  prompt.num_rows = 32;
  prompt.past = 512;
  PlanAttention(heads, {prompt}, {.tile_rows = 16}, &plan);
  ASSERT_EQ(plan.items.size(), 2u);
  EXPECT_EQ(plan.items[0].kv_begin, (512 - 99) / 16 * 16);
  EXPECT_EQ(plan.items[1].kv_begin, (528 - 99) / 16 * 16);

  decode.past = 1030;  // over chunks 1 and 2 of 512
  PlanAttention(heads, {decode}, {}, &plan);
  ASSERT_EQ(plan.merges.size(), 1u);
  EXPECT_EQ(plan.merges[0].num_splits, 2);
  for (const WorkItem& item : plan.items) {
    EXPECT_EQ(item.kv_begin, item.partial == 0 ? 931 / 16 * 16 : 1024);
    EXPECT_EQ(item.kv_end, item.partial == 0 ? 1024 : 1031);
  }
}

TEST(AttentionPlanTest, ALayerWithoutHeadsHasAnEmptyPlan) {
  AttentionPlan plan;
  StepSequence sequence;
  sequence.num_rows = 3;
  PlanAttention(RaggedHeads({2}), {sequence}, {}, &plan);
  EXPECT_FALSE(plan.items.empty());
  PlanAttention(LayerHeads(), {sequence}, {}, &plan);
  EXPECT_TRUE(plan.items.empty());
  EXPECT_TRUE(plan.merges.empty());
  EXPECT_EQ(plan.num_partials, 0);
}

TEST(AttentionPlanTest, LongDecodesAreSplitAndLongPromptsAreNot) {
  AttentionPlan plan;
  StepSequence decode;
  decode.num_rows = 1;
  decode.past = 2047;
  StepSequence prompt;
  prompt.first_row = 1;
  prompt.num_rows = 32;
  prompt.past = 2016;
  const LayerHeads heads = RaggedHeads({4, 4});
  PlanAttention(heads, {decode, prompt}, {}, &plan);
  EXPECT_EQ(plan.merges.size(), 2u);
  EXPECT_EQ(plan.items.size(), 2u * 4 + 2u * 2);
  EXPECT_EQ(plan.num_partials, 2 * 4 * 4);
}

TEST(AttentionPlanTest, TheMostWorkComesFirstAndTheOrderIsFixed) {
  TestRandom random(3);
  const LayerHeads heads = RaggedHeads({3, 1});
  const std::vector<StepSequence> sequences = RandomSequences(random, 6);
  AttentionPlan first;
  AttentionPlan second;
  PlanAttention(heads, sequences, {}, &first);
  PlanAttention(heads, sequences, {}, &second);
  ASSERT_EQ(first.items.size(), second.items.size());
  int64_t last = INT64_MAX;
  for (size_t i = 0; i < first.items.size(); ++i) {
    const WorkItem& item = first.items[i];
    EXPECT_EQ(item.first_row, second.items[i].first_row);
    EXPECT_EQ(item.kv_slot, second.items[i].kv_slot);
    EXPECT_EQ(item.kv_begin, second.items[i].kv_begin);
    const int64_t work =
        int64_t{item.num_rows} * (item.kv_end - item.kv_begin) *
        heads.kv_heads[static_cast<size_t>(item.kv_slot)].num_queries;
    EXPECT_LE(work, last);
    last = work;
  }
}

// Each sequence is planned as if it were alone with the heads that it runs.
TEST(AttentionPlanTest, SequencesRunTheHeadsOfTheirVariants) {
  TestRandom random(4);
  const LayerHeads all = RaggedHeads({3, 3, 3});
  const LayerHeads some = RaggedHeads({2, 1});
  const LayerHeads none;
  const std::vector<const LayerHeads*> variants = {&all, &none, &some};
  for (int round = 0; round < 20; ++round) {
    std::vector<StepSequence> sequences = RandomSequences(random, 6);
    for (StepSequence& sequence : sequences) {
      sequence.variant = RandomInt(random, 0, 2);
    }
    AttentionPlan together;
    PlanAttention(variants, sequences, {}, &together);
    Coverage alone;
    int64_t partials = 0;
    size_t merges = 0;
    for (StepSequence sequence : sequences) {
      const auto variant = static_cast<size_t>(sequence.variant);
      sequence.variant = 0;
      AttentionPlan plan;
      PlanAttention(*variants[variant], {sequence}, {}, &plan);
      alone.merge(PlannedTokens(plan, {}, {sequence}));
      partials += plan.num_partials;
      merges += plan.merges.size();
    }
    EXPECT_EQ(PlannedTokens(together, {}, sequences), alone);
    EXPECT_EQ(together.num_partials, partials);
    EXPECT_EQ(together.merges.size(), merges);
    for (const MergeItem& merge : together.merges) {
      const StepSequence& sequence =
          sequences[static_cast<size_t>(merge.sequence)];
      EXPECT_GE(merge.first_row, sequence.first_row);
      EXPECT_LT(merge.first_row, sequence.first_row + sequence.num_rows);
    }
  }
}

}  // namespace
}  // namespace headcount
