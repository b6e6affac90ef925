#include "cli/import.h"

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/heads_file.h"
#include "model/model_config.h"
#include "recorder.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kMailroom[] = HEADCOUNT_SOURCE_DIR "/models/mailroom";

class ImportTest : public testing::Test {
 protected:
  ImportTest()
      : folder_(std::filesystem::path(testing::TempDir()) / "import_test") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::ofstream gates(folder_ / "full_attention_heads.tsv");
    for (int layer = 0; layer < 6; ++layer) {
      gates << "0.9\t0.8\t0.0" << layer << "\t0.7\n";
    }
  }
  ~ImportTest() override { std::filesystem::remove_all(folder_); }

  std::string Out() const { return (folder_ / "heads.json").string(); }
  int Run(std::vector<std::string> args) {
    recorder_ = std::make_unique<Recorder>();
    args.insert(args.begin(), {"import", folder_.string(), "--weights",
                               kMailroom, "--out", Out()});
    return recorder_->Run(args);
  }

  const std::filesystem::path folder_;
  std::unique_ptr<Recorder> recorder_;
};

TEST_F(ImportTest, WritesAMaskThatTheServerReads) {
  ASSERT_EQ(Run({"--streaming", "25%"}), 0) << recorder_->err.str();
  const absl::StatusOr<ModelConfig> config = ReadModelConfig(kMailroom);
  ASSERT_TRUE(config.ok()) << config.status();
  const absl::StatusOr<HeadsFile> file = ReadHeadsFile(Out(), *config);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->streaming.size(), 6u);
  EXPECT_EQ(file->streaming.at(3).at(2).retention,
            (Retention{.window = 256, .sink = 64}));
  EXPECT_EQ(file->streaming.at(3).size(), 1u);
  EXPECT_EQ(file->base_sha256.size(), 64u);
  EXPECT_THAT(recorder_->out.str(), HasSubstr("6 of 24 KV heads stream"));
  EXPECT_THAT(recorder_->out.str(), HasSubstr("0.03*"));
  EXPECT_THAT(recorder_->out.str(), Not(HasSubstr("did not find")));
}

TEST_F(ImportTest, SaysWhereTheTrainingFoundNoHeadThatMayStream) {
  ASSERT_EQ(Run({"--streaming", "50%", "--sink", "16", "--recent", "100"}), 0)
      << recorder_->err.str();
  EXPECT_THAT(recorder_->out.str(), HasSubstr("first 16 and the last 100"));
  EXPECT_THAT(recorder_->out.str(),
              HasSubstr("6 of those that stream have a gate over 0.5"));
}

TEST_F(ImportTest, RefusesThePatternOfAnotherModel) {
  std::ofstream(folder_ / "full_attention_heads.tsv", std::ios::app)
      << "0.5\t0.5\t0.5\t0.5\n";
  EXPECT_EQ(Run({}), 1);
  EXPECT_THAT(recorder_->err.str(),
              HasSubstr("the pattern has 7 layers, but the model 6"));
  EXPECT_FALSE(std::filesystem::exists(Out()));
  EXPECT_EQ(Run({"--sink", "17"}), 1);
}

}  // namespace
}  // namespace headcount
