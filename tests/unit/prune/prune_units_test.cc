#include "prune/prune_units.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "synthetic_scorer.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(MakeUnits, GroupsCostTheirBytes) {
  const PruneUnits units = MakeUnits(UniformModel(2, 2, 3), UnitKind::kGroup);
  ASSERT_EQ(units.units.size(), 4u);
  EXPECT_EQ(units.total_cost, 400);
  EXPECT_EQ(units.units[3].layer, 1);
  EXPECT_EQ(units.units[3].kv_head, 1);
  EXPECT_THAT(units.units[3].query_heads, ElementsAre(3, 4, 5));
  EXPECT_THAT(units.note, IsEmpty());
}

TEST(MakeUnits, HeadsCountOneEach) {
  const PruneUnits units = MakeUnits(UniformModel(2, 2, 3), UnitKind::kHead);
  EXPECT_EQ(units.units.size(), 12u);
  EXPECT_EQ(units.total_cost, 12);
  EXPECT_THAT(units.units[4].query_heads, ElementsAre(4));
  EXPECT_EQ(units.units[4].kv_head, 1);
}

TEST(MakeUnits, MultiQueryAttentionFallsBackToHeadsAndSaysSo) {
  const PruneUnits units = MakeUnits(UniformModel(3, 1, 4), UnitKind::kGroup);
  EXPECT_EQ(units.kind, UnitKind::kHead);
  EXPECT_EQ(units.units.size(), 12u);
  EXPECT_THAT(units.note, HasSubstr("multi-query"));
}

TEST(DropsOf, EmptiesGroupsWithTheirLastQueryHead) {
  const PrunableModel model = UniformModel(2, 2, 2);
  const PruneUnits units = MakeUnits(model, UnitKind::kHead);
  UnitSet gone(8, false);
  gone[1] = gone[2] = gone[3] = true;  // layer 0: heads 1, 2 and 3
  const std::vector<LayerDrop> drops = DropsOf(model, units, gone);
  EXPECT_THAT(drops[0].query_heads, ElementsAre(1, 2, 3));
  EXPECT_THAT(drops[0].kv_heads, ElementsAre(1));
  EXPECT_THAT(drops[1].query_heads, IsEmpty());
  EXPECT_EQ(KvBytesPerToken(model, drops), 300);
  EXPECT_EQ(QueryHeads(model, drops), 5);
}

TEST(DropsOf, NamesWhatTheModelLackedAlready) {
  PrunableModel model = UniformModel(1, 3, 2);
  model[0].groups.erase(model[0].groups.begin());  // KV head 0
  model[0].groups[0].query_heads.erase(            // query head 2
      model[0].groups[0].query_heads.begin());
  const PruneUnits units = MakeUnits(model, UnitKind::kGroup);
  const std::vector<LayerDrop> none = DropsOf(model, units, {false, false});
  EXPECT_THAT(none[0].query_heads, ElementsAre(0, 1, 2));
  EXPECT_THAT(none[0].kv_heads, ElementsAre(0));
  const std::vector<LayerDrop> one = DropsOf(model, units, {true, false});
  EXPECT_THAT(one[0].query_heads, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(one[0].kv_heads, ElementsAre(0, 1));
  EXPECT_EQ(KvBytesPerToken(model, one), 100);
}

TEST(DropsOf, LeavesLayersWithoutAttentionAlone) {
  PrunableModel model = UniformModel(1, 2, 1);
  model.push_back({});
  const PruneUnits units = MakeUnits(model, UnitKind::kGroup);
  EXPECT_THAT(DropsOf(model, units, {true, true})[1].query_heads, IsEmpty());
}

}  // namespace
}  // namespace headcount
