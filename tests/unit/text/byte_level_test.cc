#include "text/byte_level.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace headcount {
namespace {

// The examples are spellings found in published GPT-2 vocabularies.
TEST(ByteLevelTest, SpellsBytesAsGpt2Does) {
  EXPECT_EQ(ByteLevelSpelling('A'), "A");
  EXPECT_EQ(ByteLevelSpelling(' '), "\u0120");
  EXPECT_EQ(ByteLevelSpelling('\n'), "\u010A");
  EXPECT_EQ(ByteLevelSpelling('\t'), "\u0109");
  EXPECT_EQ(ByteLevelSpelling(0x00), "\u0100");
  EXPECT_EQ(ByteLevelSpelling(0x7F), "\u0121");
  EXPECT_EQ(ByteLevelSpelling(0xA0), "\u0142");
  EXPECT_EQ(ByteLevelSpelling(0xA1), "\u00A1");
  EXPECT_EQ(ByteLevelSpelling(0xAD), "\u0143");
  EXPECT_EQ(ByteLevelSpelling(0xFF), "\u00FF");
}

TEST(ByteLevelTest, EveryByteHasItsOwnSpelling) {
  std::set<std::string> spellings;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string spelling = ByteLevelSpelling(static_cast<uint8_t>(byte));
    EXPECT_TRUE(spellings.insert(spelling).second) << byte;
    EXPECT_EQ(BytesOfSpelling(spelling),
              std::string(1, static_cast<char>(byte)));
  }
}

TEST(ByteLevelTest, CharactersOutsideTheAlphabetSpellNothing) {
  EXPECT_EQ(BytesOfSpelling(""), "");
  EXPECT_FALSE(BytesOfSpelling(" "));
  EXPECT_FALSE(BytesOfSpelling("a\u00ADb"));
  EXPECT_FALSE(BytesOfSpelling("\u0144"));
  EXPECT_FALSE(BytesOfSpelling("\U0001F600"));
  EXPECT_FALSE(BytesOfSpelling("\xC4"));
}

}  // namespace
}  // namespace headcount
