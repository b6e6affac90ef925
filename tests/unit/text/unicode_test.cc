#include "text/unicode.h"

#include <cstdint>
#include <ios>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace headcount {
namespace {

constexpr char kBad[] = "\uFFFD";

std::string Bad(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += kBad;
  return text;
}

void ExpectClass(std::u32string_view characters, CharClass char_class) {
  for (const char32_t c : characters) {
    EXPECT_EQ(ClassOf(c), char_class) << "U+" << std::hex << uint32_t{c};
  }
}

TEST(UnicodeTest, ClassesAreThoseOfTheUnicodeStandard) {
  ExpectClass(U"aZ\u00AA\u01C5\u02B0\u05D0\u4E2D\uAC00\U00020000",
              CharClass::kLetter);
  ExpectClass(U"0\u00B2\u00BD\u0661\u2173\u3007\U0001D7CE", CharClass::kNumber);
  ExpectClass(
      U"\t\n\v\f\r \u0085\u00A0\u1680\u2000\u200A\u2028\u2029\u202F"
      U"\u205F\u3000",
      CharClass::kSpace);
  // Once spaces, or taken for them; marks; unassigned and private characters.
  ExpectClass(
      U"\u180E\u200B\u2060\uFEFF\u001C\u001F\u007F\u0301\u20E3\u2603_"
      U"\U0001F600\u0378\uE000\U0010FFFF",
      CharClass::kOther);
  ExpectClass({U"\0", 1}, CharClass::kOther);
}

TEST(UnicodeTest, EveryCodePointIsReadBack) {
  int characters = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string bytes;
    const auto push = [&bytes](char32_t byte) {
      bytes.push_back(static_cast<char>(byte));
    };
    if (c < 0x80) {
      push(c);
    } else if (c < 0x800) {
      push(0xC0 | c >> 6), push(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
      push(0xE0 | c >> 12), push(0x80 | (c >> 6 & 0x3F));
      push(0x80 | (c & 0x3F));
    } else {
      push(0xF0 | c >> 18), push(0x80 | (c >> 12 & 0x3F));
      push(0x80 | (c >> 6 & 0x3F)), push(0x80 | (c & 0x3F));
    }
    const Utf8Step step = ReadUtf8(bytes);
    if (c >= 0xD800 && c < 0xE000) {
      EXPECT_EQ(step.kind, Utf8Step::Kind::kInvalid) << uint32_t{c};
      continue;
    }
    ASSERT_EQ(step.kind, Utf8Step::Kind::kCharacter) << uint32_t{c};
    ASSERT_EQ(step.code_point, c);
    ASSERT_EQ(step.size, bytes.size());
    ++characters;
  }
  EXPECT_EQ(characters, 0x110000 - 0x800);
}

// The first rows are tables 3-8 to 3-11 of the Unicode Standard 15.0.
TEST(UnicodeTest, InvalidBytesAreReplacedByMaximalSubparts) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", Bad(8) + "A"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", Bad(8) + "A"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", Bad(5) + "A" + Bad(2) + "B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", Bad(4) + "A"},
      {"", ""},
      {"plain", "plain"},
      {"\xC3", Bad(1)},
      {"\xF0\x9F\x98", Bad(1)},
      {"a\xF0\x9F\x98z", "a" + Bad(1) + "z"},
      {"\xF8\x88\x80\x80\x80", Bad(5)},
      {std::string("\0x", 2), std::string("\0x", 2)},
  };
  for (const auto& [bytes, text] : cases) EXPECT_EQ(ToUtf8(bytes), text);
}

TEST(UnicodeTest, TheStartOfACharacterIsLeftForLater) {
  std::string text = "before ";
  EXPECT_EQ(AppendAsUtf8("a\xF0\x9F\x98", &text), 3u);
  EXPECT_EQ(text, "before a");
  EXPECT_EQ(AppendAsUtf8("\xC3\xA9", &text), 0u);
  EXPECT_EQ(text, "before a\u00E9");
}

// From the Unicode Standard, Annex 15, and its conformance test.
TEST(UnicodeTest, NfcComposesOrdersAndExcludes) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"plain ASCII", "plain ASCII"},
      {"e\u0301", "\u00E9"},
      {"\u212B", "\u00C5"},              // Angstrom sign
      {"\u1E9B\u0323", "\u1E9B\u0323"},  // stays apart
      {"s\u0323\u0307", "\u1E69"},
      {"s\u0307\u0323", "\u1E69"},       // ordered first
      {"\u1100\u1161\u11A8", "\uAC01"},  // Hangul
      {"\u0958", "\u0915\u093C"},        // composition exclusion
      {"\u0344", "\u0308\u0301"},
      {"a\u0315\u0300\u05AE\u0300b", "\u00E0\u05AE\u0300\u0315b"},
      {"\uFB01", "\uFB01"},  // no compatibility mapping
      {"\U0001D15E", "\U0001D157\U0001D165"},
  };
  for (const auto& [text, nfc] : cases) {
    EXPECT_EQ(NormalizeNfc(text), nfc);
    EXPECT_EQ(NormalizeNfc(nfc), nfc);
  }
}

// A quadratic sort of marks would need 10^11 steps here.
TEST(UnicodeTest, NfcOrdersALongRunOfMarks) {
  constexpr int kPairs = 300'000;
  std::string text = "x";
  std::string expected = "x";
  for (int i = 0; i < kPairs; ++i) text += "\u0301\u0316";
  for (int i = 0; i < kPairs; ++i) expected += "\u0316";
  for (int i = 0; i < kPairs; ++i) expected += "\u0301";
  EXPECT_TRUE(NormalizeNfc(text) == expected);
}

}  // namespace
}  // namespace headcount
