#include "text/bpe.h"

#include <algorithm>
#include <array>
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

std::array<int32_t, 256> IdentityBytes() {
  std::array<int32_t, 256> ids;
  for (size_t byte = 0; byte < ids.size(); ++byte) {
    ids[byte] = static_cast<int32_t>(byte);
  }
  return ids;
}

std::vector<int32_t> Encode(const Bpe& bpe, std::string_view piece) {
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  bpe.Encode(piece, scratch, ids);
  return ids;
}

// The definition, step by step.
std::vector<int32_t> NaiveEncode(const std::vector<BpeMerge>& merges,
                                 std::string_view piece) {
  std::map<std::pair<int32_t, int32_t>, size_t> ranks;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    ranks[{merges[rank].left, merges[rank].right}] = rank;
  }
  std::vector<int32_t> ids;
  for (const char c : piece) ids.push_back(static_cast<unsigned char>(c));
  while (true) {
    size_t best = ids.size();
    size_t best_rank = merges.size();
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found != ranks.end() && found->second < best_rank) {
        best = i;
        best_rank = found->second;
      }
    }
    if (best == ids.size()) return ids;
    ids[best] = merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BpeTest, TheLowestRankIsMergedFirstAndTheLeftmostOfSeveral) {
  const std::vector<BpeMerge> merges = {
      {'b', 'c', 300}, {'a', 'b', 301}, {'a', 'a', 302}, {302, 'a', 303}};
  const Bpe bpe(IdentityBytes(), merges);
  EXPECT_THAT(Encode(bpe, ""), ElementsAre());
  EXPECT_THAT(Encode(bpe, "x"), ElementsAre('x'));
  EXPECT_THAT(Encode(bpe, "abc"), ElementsAre('a', 300));
  EXPECT_THAT(Encode(bpe, "aaa"), ElementsAre(303));
  EXPECT_THAT(Encode(bpe, "aaaa"), ElementsAre(302, 302));
}

TEST(BpeTest, OfTwoMergesOfOnePairTheLastHolds) {
  const std::vector<BpeMerge> merges = {
      {'a', 'b', 300}, {'b', 'c', 301}, {'a', 'b', 300}};
  EXPECT_THAT(Encode(Bpe(IdentityBytes(), merges), "abc"),
              ElementsAre('a', 301));
}

TEST(BpeTest, BytesWithoutATokenAreLeftOut) {
  std::array<int32_t, 256> ids = IdentityBytes();
  ids['-'] = Bpe::kNoToken;
  const std::vector<BpeMerge> merges = {{'a', 'b', 300}};
  EXPECT_THAT(Encode(Bpe(ids, merges), "-a-b-"), ElementsAre(300));
}

TEST(BpeTest, EqualsTheDefinitionOnRandomVocabularies) {
  std::mt19937 random(1);
  const auto draw = [&random](int limit) {
    return std::uniform_int_distribution<int>(0, limit - 1)(random);
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<BpeMerge> merges;
    std::vector<int32_t> symbols = {'a', 'b', 'c'};
    for (int i = 0; i < 1 + draw(40); ++i) {
      const auto pick = [&] {
        return symbols[static_cast<size_t>(
            draw(static_cast<int>(symbols.size())))];
      };
      merges.push_back({pick(), pick(), 256 + i});
      symbols.push_back(256 + i);
    }
    std::shuffle(merges.begin(), merges.end(), random);
    const Bpe bpe(IdentityBytes(), merges);
    for (int text = 0; text < 10; ++text) {
      std::string piece;
      for (int i = draw(60); i > 0; --i) {
        piece.push_back(static_cast<char>('a' + draw(3)));
      }
      ASSERT_EQ(Encode(bpe, piece), NaiveEncode(merges, piece)) << piece;
    }
  }
}

// The naive loop would need 10^10 steps here.
TEST(BpeTest, ALongRunOfOneLetterIsOnePiece) {
  constexpr size_t kBytes = 1 << 17;
  std::vector<BpeMerge> merges = {{'a', 'a', 256}};
  for (int32_t id = 256; id < 264; ++id) merges.push_back({id, id, id + 1});
  const std::vector<int32_t> ids =
      Encode(Bpe(IdentityBytes(), merges), std::string(kBytes, 'a'));
  EXPECT_EQ(ids.size(), kBytes / 512);
  EXPECT_THAT(ids, Each(264));
}

}  // namespace
}  // namespace headcount
