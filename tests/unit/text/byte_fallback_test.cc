#include "text/byte_fallback.h"

#include <optional>

#include "gtest/gtest.h"

namespace headcount {
namespace {

TEST(ByteFallbackTest, SpellsBytesInUpperCaseHex) {
  EXPECT_EQ(ByteFallbackSpelling(0), "<0x00>");
  EXPECT_EQ(ByteFallbackSpelling(0xAF), "<0xAF>");
}

TEST(ByteFallbackTest, ReadsWhatIsExactlyAByte) {
  EXPECT_EQ(ByteOfSpelling("<0x00>"), 0);
  EXPECT_EQ(ByteOfSpelling("<0xAF>"), 0xAF);
  EXPECT_EQ(ByteOfSpelling("<0xaf>"), 0xAF);
  for (const char* spelling :
       {"", "<0x>", "<0x0>", "<0x000>", "<0xG0>", "<0x0G>", "<0X00>", "<0x00 ",
        "x0x00>", "<0x-1>", "<0x 1>"}) {
    EXPECT_EQ(ByteOfSpelling(spelling), std::nullopt) << spelling;
  }
}

}  // namespace
}  // namespace headcount
