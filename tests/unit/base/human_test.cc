#include "base/human.h"

#include "gtest/gtest.h"

namespace headcount {
namespace {

TEST(HumanTest, ReadsSizesInBothPowers) {
  EXPECT_EQ(ParseByteSize("4096").value(), 4096);
  EXPECT_EQ(ParseByteSize("64MiB").value(), 64 << 20);
  EXPECT_EQ(ParseByteSize("1.5 GiB").value(), 3LL << 29);
  EXPECT_EQ(ParseByteSize("2GB").value(), 2'000'000'000);
  EXPECT_EQ(ParseByteSize("0").value(), 0);
}

TEST(HumanTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", "MiB", "-1", "nan", "inf", "1e30", "12 parsecs",
                           "1MiBMiB", "999999999TiB"}) {
    EXPECT_FALSE(ParseByteSize(text).ok()) << text;
  }
}

TEST(HumanTest, ReadsDurationsWithAUnit) {
  EXPECT_EQ(ParseDuration("300s").value(), absl::Seconds(300));
  EXPECT_EQ(ParseDuration("250ms").value(), absl::Milliseconds(250));
  EXPECT_FALSE(ParseDuration("300").ok());
  EXPECT_FALSE(ParseDuration("-1s").ok());
}

TEST(HumanTest, WritesSizesAndCounts) {
  EXPECT_EQ(FormatByteSize(0), "0 B");
  EXPECT_EQ(FormatByteSize(1536), "1.5 KiB");
  EXPECT_EQ(FormatByteSize(1 << 30), "1.0 GiB");
  EXPECT_EQ(FormatCount(4192), "4,192");
  EXPECT_EQ(FormatCount(-1234567), "-1,234,567");
  EXPECT_EQ(FormatCount(999), "999");
}

}  // namespace
}  // namespace headcount
