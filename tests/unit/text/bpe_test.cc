#include "text/bpe.h"

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

// Letters have their own codes as ids.
std::vector<int32_t> Letters(std::string_view piece) {
  std::vector<int32_t> ids;
  for (const char c : piece) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::vector<int32_t> Encode(const std::vector<BpeMerge>& merges,
                            std::string_view piece) {
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  Bpe(merges).Encode(Letters(piece), scratch, ids);
  return ids;
}

// The definition, step by step.
std::vector<int32_t> NaiveEncode(const std::vector<BpeMerge>& merges,
                                 std::string_view piece) {
  std::map<std::pair<int32_t, int32_t>, BpeMerge> by_pair;
  for (const BpeMerge& merge : merges)
    by_pair[{merge.left, merge.right}] = merge;
  std::vector<int32_t> ids = Letters(piece);
  while (true) {
    size_t best = ids.size();
    BpeMerge best_merge = {};
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = by_pair.find({ids[i], ids[i + 1]});
      if (found == by_pair.end()) continue;
      if (best == ids.size() || found->second.rank < best_merge.rank) {
        best = i;
        best_merge = found->second;
      }
    }
    if (best == ids.size()) return ids;
    ids[best] = best_merge.result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BpeTest, TheLowestRankIsMergedFirstAndTheLeftmostOfSeveral) {
  const std::vector<BpeMerge> merges = {{'b', 'c', 300, 0},
                                        {'a', 'b', 301, 1},
                                        {'a', 'a', 302, 2},
                                        {302, 'a', 303, 3}};
  EXPECT_THAT(Encode(merges, ""), ElementsAre());
  EXPECT_THAT(Encode(merges, "x"), ElementsAre('x'));
  EXPECT_THAT(Encode(merges, "abc"), ElementsAre('a', 300));
  EXPECT_THAT(Encode(merges, "aaa"), ElementsAre(303));
  EXPECT_THAT(Encode(merges, "aaaa"), ElementsAre(302, 302));
}

TEST(BpeTest, OfEqualRanksTheLeftmostPairIsMergedFirst) {
  const std::vector<BpeMerge> merges = {{'b', 'c', 300, 7}, {'a', 'b', 301, 7}};
  EXPECT_THAT(Encode(merges, "abc"), ElementsAre(301, 'c'));
  EXPECT_THAT(Encode(merges, "bcab"), ElementsAre(300, 301));
}

TEST(BpeTest, OfTwoMergesOfOnePairTheLastHolds) {
  const std::vector<BpeMerge> merges = {
      {'a', 'b', 300, 0}, {'b', 'c', 301, 1}, {'a', 'b', 300, 2}};
  EXPECT_THAT(Encode(merges, "abc"), ElementsAre('a', 301));
}

TEST(BpeTest, EqualsTheDefinitionOnRandomVocabularies) {
  std::mt19937 random(1);
  const auto draw = [&random](int limit) {
    return std::uniform_int_distribution<int>(0, limit - 1)(random);
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<BpeMerge> merges;
    std::vector<int32_t> symbols = {'a', 'b', 'c'};
    const int ranks = 1 + draw(60);  // some merges share one
    for (int i = 0; i < 1 + draw(40); ++i) {
      const auto pick = [&] {
        return symbols[static_cast<size_t>(
            draw(static_cast<int>(symbols.size())))];
      };
      merges.push_back(
          {pick(), pick(), 256 + i, static_cast<uint32_t>(draw(ranks))});
      symbols.push_back(256 + i);
    }
    for (int text = 0; text < 10; ++text) {
      std::string piece;
      for (int i = draw(60); i > 0; --i) {
        piece.push_back(static_cast<char>('a' + draw(3)));
      }
      ASSERT_EQ(Encode(merges, piece), NaiveEncode(merges, piece)) << piece;
    }
  }
}

// The naive loop would need 10^10 steps here.
TEST(BpeTest, ALongRunOfOneLetterIsOnePiece) {
  constexpr size_t kBytes = 1 << 17;
  std::vector<BpeMerge> merges = {{'a', 'a', 256, 0}};
  for (int32_t id = 256; id < 264; ++id) {
    merges.push_back({id, id, id + 1, static_cast<uint32_t>(id)});
  }
  const std::vector<int32_t> ids = Encode(merges, std::string(kBytes, 'a'));
  EXPECT_EQ(ids.size(), kBytes / 512);
  EXPECT_THAT(ids, Each(264));
}

}  // namespace
}  // namespace headcount
