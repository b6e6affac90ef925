#include <cmath>

#include "cli/confusion.h"
#include "cli/console.h"
#include "cli/labelled_texts.h"
#include "cli/statistics.h"
#include "cli/table.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

TEST(ConsoleTest, TakesFromATerminalWhatItWouldObey) {
  EXPECT_EQ(Printable("a\x1b[31mb\x07\x7f\xC2\x9B"
                      "c"),
            "a [31mb   c");
  EXPECT_EQ(Printable("a\nb\tc"), "a b c");
  EXPECT_EQ(Printable("a\nb\tc\r", /*keep_lines=*/true), "a\nb\tc ");
  EXPECT_EQ(Printable("gr\xC3\xBC\xC3\x9F"), "gr\xC3\xBC\xC3\x9F");
}

TEST(ConsoleTest, CropsToWholeCharacters) {
  EXPECT_EQ(Crop("  two \n words ", 20), "two words");
  EXPECT_EQ(Crop("0123456789", 10), "0123456789");
  EXPECT_EQ(Crop("0123456789A", 10), "0123456...");
  EXPECT_EQ(Crop("\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC", 4), "\xC3\xBC...");
}

TEST(TableTest, LinesUpColumns) {
  Table table({{"NAME"}, {"SIZE", Align::kRight}});
  table.AddRow({"a", "1"});
  table.AddRow({"\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC", "1234567"});
  EXPECT_EQ(table.Render(),
            "NAME      SIZE\n"
            "a            1\n"
            "\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC\xC3\xBC  1234567\n");
  EXPECT_EQ(RenderFields({{"a", "1"}, {"bcd", "2"}}), "a    1\nbcd  2\n");
}

TEST(StatisticsTest, PercentilesAreValuesThatOccurred) {
  EXPECT_EQ(Percentile({}, 50), 0);
  EXPECT_EQ(Percentile({7}, 99), 7);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 50), 2);
  EXPECT_EQ(Percentile({4, 1, 3, 2}, 90), 4);
  std::vector<double> hundred;
  for (int i = 100; i >= 1; --i) hundred.push_back(i);
  EXPECT_EQ(Percentile(hundred, 90), 90);
  EXPECT_EQ(Percentile(hundred, 99), 99);
}

// Brown, Cai, DasGupta 2001, Statistical Science 16(2), and the interval on
// the card of models/mailroom: 683 of 701.
TEST(StatisticsTest, WilsonIntervalsAreThoseOfTheBooks) {
  const Interval card = WilsonInterval(683, 701);
  EXPECT_NEAR(card.low, 0.960, 0.0005);
  EXPECT_NEAR(card.high, 0.984, 0.0005);
  const Interval none = WilsonInterval(0, 10);
  EXPECT_NEAR(none.low, 0, 1e-12);
  EXPECT_NEAR(none.high, 0.2775, 0.0001);
  EXPECT_NEAR(WilsonInterval(10, 10).high, 1, 1e-12);
  EXPECT_EQ(WilsonInterval(0, 0).high, 1);
}

TEST(ConfusionTest, CountsGuessesAgainstTheTruth) {
  Confusion confusion;
  confusion.Add("spam", "spam");
  confusion.Add("spam", "ham");
  confusion.Add("ham", "ham");
  confusion.Add("ham", "ham");
  EXPECT_EQ(confusion.right(), 3);
  EXPECT_DOUBLE_EQ(confusion.accuracy(), 0.75);
  const std::string text = confusion.Render();
  EXPECT_THAT(text, HasSubstr("75.00 % right (3 of 4)"));
  EXPECT_THAT(text, HasSubstr("TRUTH  AS ham  AS spam\n"
                              "ham         2        0\n"
                              "spam        1        1\n"));
  EXPECT_EQ(confusion.ToJson()["confusion"]["spam"]["ham"], 1);
}

TEST(LabelledTextsTest, ReadsTheFieldThatIsNamedOrFound) {
  EXPECT_EQ(ParseLabelledText(R"({"text": "a", "body": "b"})", "", "f:1")
                .value()
                .text,
            "a");
  EXPECT_EQ(
      ParseLabelledText(R"({"body": "b", "label": "ham"})", "", "f:1")->label,
      "ham");
  EXPECT_EQ(
      ParseLabelledText(R"({"body": "b", "subject": "s"})", "subject", "f:1")
          ->text,
      "s");
}

TEST(LabelledTextsTest, NamesTheLineOfWhatIsWrong) {
  for (const std::string line :
       {"", "[]", "3", "{", R"({"body": 3})", R"({"subject": "s"})"}) {
    const auto text = ParseLabelledText(line, "", "mails.jsonl:7");
    ASSERT_FALSE(text.ok()) << line;
    EXPECT_THAT(std::string(text.status().message()),
                HasSubstr("mails.jsonl:7"));
  }
}

TEST(LabelledTextsTest, ReadsCompressedFiles) {
  const auto mails = ReadLabelledTexts(
      HEADCOUNT_SOURCE_DIR "/tests/data/spam/test.jsonl.gz", "body");
  ASSERT_TRUE(mails.ok()) << mails.status();
  EXPECT_EQ(mails->size(), 701u);
  EXPECT_EQ(mails->front().label, "ham");
}

TEST(LabelledTextsTest, MissesAFileThatIsNotThere) {
  EXPECT_TRUE(
      absl::IsNotFound(ReadLabelledTexts("/no/such/file", "").status()));
}

}  // namespace
}  // namespace headcount
