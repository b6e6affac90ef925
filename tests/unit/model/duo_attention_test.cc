#include "model/duo_attention.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DuoAttentionTest : public testing::Test {
 protected:
  DuoAttentionTest()
      : folder_(std::filesystem::path(testing::TempDir()) / "duo_attention") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~DuoAttentionTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  absl::StatusOr<DuoPattern> Read() const {
    return ReadDuoPattern(folder_.string());
  }

  const std::filesystem::path folder_;
};

TEST_F(DuoAttentionTest, ReadsGatesAndWhatIsKept) {
  Write("full_attention_heads.tsv",
        "9.5e-01\t-1.000000000000000000e-03\n0.25\t1.2\r\n\n");
  Write("config.json", R"({"sink_size": 50, "recent_size": 100, "lr": 0.02})");
  const absl::StatusOr<DuoPattern> pattern = Read();
  ASSERT_TRUE(pattern.ok()) << pattern.status();
  EXPECT_THAT(pattern->gates,
              ElementsAre(ElementsAre(0.95, 0.0), ElementsAre(0.25, 1.0)));
  EXPECT_EQ(pattern->streaming, (Retention{.window = 100, .sink = 64}));
  EXPECT_TRUE(CheckDuoPattern(*pattern, {{4, 2}, {4, 2}}).ok());
  EXPECT_THAT(
      std::string(CheckDuoPattern(*pattern, {{4, 2}, {4, 4}}).message()),
      HasSubstr("layer 1: the pattern has 2 gates, but the model 4 KV heads"));
  EXPECT_THAT(std::string(CheckDuoPattern(*pattern, {{4, 2}}).message()),
              HasSubstr("2 layers, but the model 1"));
  // The file itself may be named, too.
  EXPECT_TRUE(
      ReadDuoPattern((folder_ / "full_attention_heads.tsv").string()).ok());
}

TEST_F(DuoAttentionTest, WithoutAConfigurationItIsWhatThePaperDeploys) {
  Write("full_attention_heads.tsv", "0.5 0.5\n");
  const absl::StatusOr<DuoPattern> pattern = Read();
  ASSERT_TRUE(pattern.ok()) << pattern.status();
  EXPECT_EQ(pattern->streaming, (Retention{.window = 256, .sink = 64}));
}

TEST_F(DuoAttentionTest, NamesFileAndLineOfWhatIsNoGate) {
  EXPECT_THAT(std::string(Read().status().message()),
              HasSubstr("cannot be opened"));
  Write("full_attention_heads.tsv", "0.5\t0.5\n0.5\tnan\n");
  EXPECT_THAT(std::string(Read().status().message()),
              HasSubstr("full_attention_heads.tsv:2: 'nan' is no number"));
  Write("full_attention_heads.tsv", "0.5\t0.5x\n");
  EXPECT_THAT(std::string(Read().status().message()), HasSubstr("'0.5x'"));
  Write("full_attention_heads.tsv", "0.5\n");
  Write("config.json", R"({"recent_size": 0})");
  EXPECT_THAT(std::string(Read().status().message()),
              HasSubstr("config.json: recent_size: 0"));
}

TEST(StreamingHeadsTest, TakesTheLeastGatesAndTheFirstOfEqualOnes) {
  const DuoPattern pattern{.gates = {{0.9, 0.1, 0.5}, {0.5, 0.0, 0.5}}};
  const auto places = [&pattern](double share) {
    std::vector<std::pair<int, int>> found;
    for (const auto& [layer, heads] : StreamingHeads(pattern, share)) {
      for (const auto& [head, rule] : heads) {
        EXPECT_EQ(rule.retention, pattern.streaming);
        EXPECT_EQ(rule.dtype, std::nullopt);
        found.push_back({layer, head});
      }
    }
    return found;
  };
  using ::testing::Pair;
  EXPECT_THAT(places(0), IsEmpty());
  EXPECT_THAT(places(0.3), ElementsAre(Pair(1, 1)));  // 1.8 of 6
  EXPECT_THAT(places(0.5), ElementsAre(Pair(0, 1), Pair(0, 2), Pair(1, 1)));
  EXPECT_THAT(places(1), testing::SizeIs(6));
}

}  // namespace
}  // namespace headcount
