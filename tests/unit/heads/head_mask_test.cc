#include "heads/head_mask.h"

#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseHeadRange, AddsOneHeadOrAnInclusiveRange) {
  std::set<int> heads;
  ASSERT_TRUE(ParseHeadRange("5", &heads).ok());
  ASSERT_TRUE(ParseHeadRange("0-2", &heads).ok());
  ASSERT_TRUE(ParseHeadRange("2-2", &heads).ok());
  ASSERT_TRUE(ParseHeadRange("65535", &heads).ok());
  EXPECT_THAT(heads, ElementsAre(0, 1, 2, 5, 65535));
}

TEST(ParseHeadRange, RefusesEverythingElseAndAddsNothing) {
  for (const char* text :
       {"", "-", "1-", "-1", "+1", " 1", "1 ", "1-2-3", "1..2", "a", "0x1",
        "1.0", "65536", "0-65536", "99999999999999999999", "--1", "1--2"}) {
    std::set<int> heads;
    const absl::Status status = ParseHeadRange(text, &heads);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_TRUE(heads.empty()) << text;
  }
}

TEST(ParseHeadRange, SaysHowToWriteAReversedRange) {
  std::set<int> heads;
  const absl::Status status = ParseHeadRange("7-3", &heads);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("\"7-3\" is reversed: write it as 3-7"));
  EXPECT_TRUE(heads.empty());
}

}  // namespace
}  // namespace headcount
