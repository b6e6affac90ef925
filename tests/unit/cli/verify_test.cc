#include "cli/verify.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "fake_calibration.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "recorder.h"

namespace headcount {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

// Every other mail is spam, as "mail" and "half" say; "worse" says it of all.
class VerifyTest : public testing::Test {
 protected:
  VerifyTest()
      : data_(absl::StrCat(
            testing::TempDir(), "/",
            testing::UnitTest::GetInstance()->current_test_info()->name(),
            ".jsonl")) {}

  // 90 mails, with more fields in their lines.
  void WriteMails(const std::string& of_spam, const std::string& of_others) {
    std::ofstream data(data_);
    for (int i = 0; i < 90; ++i) {
      const bool spam = i % 2 == 0;
      data << R"({"text": "mail )" << i << (spam ? " win\"" : "\"")
           << (spam ? of_spam : of_others) << "}\n";
    }
  }
  void WriteLabelled() {
    WriteMails(R"(, "label": "spam")", R"(, "label": "ham")");
  }
  // The command with --against, --data and --address.
  int Run(std::vector<std::string> args) {
    recorder_ = std::make_unique<Recorder>();
    args.insert(args.begin(), "verify");
    args.insert(args.end(), {"--against", "mail", "--data", data_, "--address",
                             server_.address});
    return recorder_->Run(args);
  }
  std::string out() const { return recorder_->out.str(); }
  std::string err() const { return recorder_->err.str(); }

  const std::string data_;
  FakeCalibration server_;
  std::unique_ptr<Recorder> recorder_;
};

TEST_F(VerifyTest, GatesOnItsThresholds) {
  WriteLabelled();
  // 90 answers that never differ: at most 2.92 points.
  EXPECT_EQ(Run({"half", "--max-loss", "3pt", "--max-kv-bytes", "50%",
                 "--min-agreement", "100%"}),
            0)
      << err();
  EXPECT_THAT(out(), HasSubstr("50.0 %"));
  EXPECT_THAT(server_.salts, SizeIs(180)) << "no text is in a prefix cache";
  EXPECT_EQ(Run({"half", "--max-loss", "1pt"}), 1);
  EXPECT_THAT(err(), HasSubstr("not enough data to claim this"));
  EXPECT_EQ(Run({"half", "--max-loss", "3pt", "--max-kv-bytes", "40%"}), 1);
  EXPECT_THAT(err(), HasSubstr("--max-kv-bytes"));
  EXPECT_EQ(Run({"worse", "--max-loss", "3pt", "--min-agreement", "90%",
                 "--max-kl", "0.01", "--output", "json"}),
            1);
  const Json json = ParseOutput(out());
  EXPECT_EQ(json["passed"], false);
  EXPECT_THAT(json["failures"], SizeIs(3));
  // 0.75 ln 3 - 0.25 ln 3 for the half that differs.
  EXPECT_NEAR(json["quality"]["kl_mean"].get<double>(), 0.5 * 0.549306, 1e-4);
}

TEST_F(VerifyTest, ComparesTheLabelsOfTextsThatHaveNone) {
  WriteMails("", "");
  EXPECT_EQ(Run({"half", "--min-agreement", "100%"}), 0) << err();
  EXPECT_THAT(out(), HasSubstr("100.00 %"));
  EXPECT_EQ(Run({"worse", "--max-loss", "9nats", "--min-agreement", "90%",
                 "--output", "json"}),
            1);
  const Json json = ParseOutput(out());
  EXPECT_EQ(json["quality"]["agreement"], 0.5);
  EXPECT_EQ(json["failures"],
            Json::array({"--min-agreement: 50.00 % of the labels agree"}));
}

TEST_F(VerifyTest, PrintsNothingOfTargetsThatItDidNotCompare) {
  WriteMails(R"(, "target": "title")", R"(, "target": "title")");
  ASSERT_EQ(Run({"half"}), 0) << err();
  EXPECT_THAT(out(), AllOf(HasSubstr("-1.0000 nats"), Not(HasSubstr("KL")),
                           Not(HasSubstr("same label"))));
  ASSERT_EQ(Run({"half", "--output", "json"}), 0) << err();
  const Json quality = ParseOutput(out())["quality"];
  EXPECT_EQ(quality["n"], 90);
  for (const char* member : {"agreement", "kl_mean", "kl_ci95", "kl_p95"}) {
    EXPECT_FALSE(quality.contains(member)) << member;
  }
}

TEST_F(VerifyTest, RefusesAThresholdOfLabelsForTargets) {
  WriteMails(R"(, "target": "title")", R"(, "target": "title")");
  EXPECT_EQ(Run({"half", "--max-kl", "0.001"}), 1);
  EXPECT_THAT(err(), HasSubstr("--max-kl: of examples with a \"target\""));
  EXPECT_EQ(Run({"half", "--min-agreement", "98%"}), 1);
  EXPECT_THAT(err(),
              HasSubstr("--min-agreement: of examples with a \"target\""));
  EXPECT_EQ(Run({"half", "--max-kl", "0"}), 0) << err();
}

}  // namespace
}  // namespace headcount
