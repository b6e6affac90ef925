#include "backend/philox.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;

// kat_vectors of Random123 1.14.0, philox4x32 with 10 rounds.
TEST(PhiloxTest, GivesTheKnownAnswersOfRandom123) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                         {0xffffffff, 0xffffffff}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                         {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(PhiloxTest, UniformBitsAre24AndDependOnBothWords) {
  double sum = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (uint64_t position = 0; position < 10000; ++position) {
      const uint32_t value = UniformBits(seed, position);
      ASSERT_LT(value, 1u << 24);
      sum += value * 0x1p-24;
    }
  }
  // Five standard deviations.
  EXPECT_NEAR(sum / 1e6, 0.5, 0.0015);
  EXPECT_NE(UniformBits(1, 5), UniformBits(2, 5));
  EXPECT_NE(UniformBits(1, 5), UniformBits(uint64_t{1} << 32 | 1, 5));
  EXPECT_NE(UniformBits(1, 5), UniformBits(1, uint64_t{1} << 32 | 5));
}

}  // namespace
}  // namespace headcount
