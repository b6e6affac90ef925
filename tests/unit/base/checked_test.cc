#include "base/checked.h"

#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace headcount {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

TEST(CheckedTest, AddIsExactOrAbsent) {
  EXPECT_EQ(CheckedAdd<int64_t>(kMax - 1, 1), kMax);
  EXPECT_FALSE(CheckedAdd<int64_t>(kMax, 1).has_value());
  EXPECT_FALSE(CheckedAdd<uint64_t>(~uint64_t{0}, 1).has_value());
}

TEST(CheckedTest, MulIsExactOrAbsent) {
  EXPECT_EQ(CheckedMul<int64_t>(1 << 20, 1 << 20), int64_t{1} << 40);
  EXPECT_FALSE(CheckedMul<int64_t>(int64_t{1} << 32, int64_t{1} << 31));
  EXPECT_FALSE(CheckedMul<uint64_t>(uint64_t{1} << 63, 2));
}

TEST(CheckedTest, CastRefusesWhatDoesNotFit) {
  EXPECT_EQ(CheckedCast<int32_t>(int64_t{1} << 30), 1 << 30);
  EXPECT_FALSE(CheckedCast<int32_t>(int64_t{1} << 31).has_value());
  EXPECT_FALSE(CheckedCast<uint32_t>(-1).has_value());
}

}  // namespace
}  // namespace headcount
