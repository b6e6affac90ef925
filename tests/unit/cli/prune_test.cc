#include "cli/prune.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "cli/prune_data.h"
#include "cli/prune_flags.h"
#include "cli/prune_task.h"
#include "cli/rpc_gate_scorer.h"
#include "cli/score_journal.h"
#include "fake_calibration.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/heads_file.h"
#include "nlohmann/json.hpp"
#include "recorder.h"

namespace headcount {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class PruneTest : public testing::Test {
 protected:
  PruneTest()
      : folder_(std::filesystem::path(testing::TempDir()) /
                testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::ofstream data(Path("mails.jsonl"));
    for (int i = 0; i < 90; ++i) {
      const char* split = i % 3 == 0 ? "rank" : i % 3 == 1 ? "select" : "test";
      data << R"({"text": "mail )" << i << (i % 2 == 0 ? " win" : "")
           << R"(", "label": ")" << (i % 2 == 0 ? "spam" : "ham")
           << R"(", "split": ")" << split << "\"}\n";
    }
  }

  std::string Path(const std::string& name) const {
    return (folder_ / name).string();
  }
  std::string Read(const std::string& name) const {
    std::ifstream file(Path(name));
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
  // The command with --data, --out and --address.
  int Run(std::vector<std::string> args) {
    recorder_ = std::make_unique<Recorder>();
    args.insert(args.begin(), "prune");
    args.insert(args.end(), {"--data", Path("mails.jsonl"), "--out",
                             Path("heads.json"), "--address", server_.address});
    return recorder_->Run(args);
  }
  std::string out() const { return recorder_->out.str(); }
  std::string err() const { return recorder_->err.str(); }

  const std::filesystem::path folder_;
  FakeCalibration server_;
  std::unique_ptr<Recorder> recorder_;
};

TEST_F(PruneTest, WritesAMaskThatTheServerReads) {
  ASSERT_EQ(Run({"--kv-bytes", "50%"}), 0) << err();
  const Json json = ParseOutput(Read("heads.json"));
  ASSERT_FALSE(json.is_discarded());
  ModelConfig config;
  config.architecture = "llama";
  config.layers = 2;
  config.head_dim = 32;
  config.heads = {{4, 2}, {4, 2}};
  const absl::StatusOr<HeadsFile> file =
      ParseHeadsFile(nlohmann::json::parse(Read("heads.json")), config);
  ASSERT_TRUE(file.ok()) << file.status();
  // Group 1 of layer 0 (0.01) and group 0 of layer 1 (0).
  EXPECT_THAT(file->mask.pruned.at(0), ElementsAre(2, 3));
  EXPECT_THAT(file->mask.pruned.at(1), ElementsAre(0, 1));
  EXPECT_EQ(json["evidence"]["kv_bytes_per_token"], Json({400, 200}));
  EXPECT_EQ(json["evidence"]["n_test"], 30);
  EXPECT_EQ(json["evidence"]["dense"], 1.0);
}

TEST_F(PruneTest, SaysThatThirtyExamplesProveNothing) {
  ASSERT_EQ(Run({"--kv-bytes", "50%"}), 0) << err();
  EXPECT_THAT(out(), HasSubstr("2 of 4 KV groups pruned, 2 kept"));
  EXPECT_THAT(out(), HasSubstr("not enough data to claim this"));
  EXPECT_THAT(Read("heads.html"), HasSubstr("not enough data to claim this"));
  EXPECT_EQ(Run({"--max-loss", "1pt"}), 1);
  EXPECT_THAT(err(), HasSubstr("no mask was written"));
}

TEST_F(PruneTest, AThresholdThatFewExamplesCanHoldPicksTheMask) {
  ASSERT_EQ(Run({"--max-loss", "10pt", "--step", "25%", "--output", "json"}), 0)
      << err();
  const Json json = ParseOutput(out());
  // 0, 0.01 and 0.2 together stay under 0.3 nats.
  EXPECT_EQ(json["units_pruned"], 3);
  EXPECT_EQ(json["claim_holds"], true);
}

TEST_F(PruneTest, GoesOnWhereItWasStopped) {
  ASSERT_EQ(Run({"--keep", "50%"}), 0) << err();
  const std::string mask = Read("heads.json");
  const int64_t whole = server_.examples_asked;
  EXPECT_FALSE(std::filesystem::exists(Path("heads.journal")));

  std::filesystem::remove(Path("heads.json"));
  server_.examples_asked = 0;
  server_.examples_left = 47;
  EXPECT_EQ(Run({"--keep", "50%"}), 3);
  EXPECT_FALSE(std::filesystem::exists(Path("heads.json")));
  server_.examples_left = 1 << 20;
  ASSERT_EQ(Run({"--keep", "50%"}), 0) << err();
  EXPECT_THAT(err(), HasSubstr("Going on with"));
  EXPECT_EQ(server_.examples_asked, whole) << "nothing was asked twice";
  EXPECT_EQ(Read("heads.json"), mask);
}

// Many calls with little in them made the next one too long for its deadline.
TEST_F(PruneTest, ACallIsAtMostTwiceAsLargeAsOneThatWasQuick) {
  std::ofstream data(Path("mails.jsonl"));
  for (int i = 0; i < 700; ++i) {
    const char* split = i < 8 ? "rank" : i < 16 ? "select" : "test";
    data << R"({"text": "mail )" << i << R"(", "label": "ham", "split": ")"
         << split << "\"}\n";
  }
  data.close();
  ASSERT_EQ(Run({"--keep", "25%", "--step", "5%"}), 0) << err();
  int64_t largest = 32;  // half of the first
  for (const int64_t call : server_.calls) {
    EXPECT_LE(call, 2 * largest);
    largest = std::max(largest, call);
  }
  EXPECT_GT(largest, 1'000) << "while calls are quick, they grow";
}

TEST_F(PruneTest, RefusesTheJournalOfAnotherRun) {
  server_.examples_left = 5;
  EXPECT_EQ(Run({"--keep", "50%"}), 3);
  server_.examples_left = 1 << 20;
  EXPECT_EQ(Run({"--keep", "50%", "--unit", "head"}), 1);
  EXPECT_THAT(err(), HasSubstr("another model, other data or another seed"));
}

TEST_F(PruneTest, PrunesSingleHeads) {
  ASSERT_EQ(Run({"--keep", "75%", "--unit", "head", "--output", "json"}), 0)
      << err();
  const Json json = ParseOutput(out());
  EXPECT_EQ(json["units"], 8);
  EXPECT_EQ(json["units_pruned"], 2);
  EXPECT_EQ(Run({"--kv-bytes", "75%", "--unit", "head"}), 1);
  EXPECT_THAT(err(), HasSubstr("use --keep or --unit group"));
}

TEST_F(PruneTest, ScoresTargetsInNatsAToken) {
  std::ofstream data(Path("mails.jsonl"));
  for (int i = 0; i < 60; ++i) {
    const char* split = i % 3 == 0 ? "rank" : i % 3 == 1 ? "select" : "test";
    data << R"({"text": "mail )" << i << R"(", "target": "title", "split": ")"
         << split << "\"}\n";
  }
  data.close();
  ASSERT_EQ(Run({"--keep", "25%", "--output", "json"}), 0) << err();
  EXPECT_EQ(server_.last_request.examples(0).target_text(), "title");
  const Json json = ParseOutput(out());
  // Three groups of 0, 0.01 and 0.2 nats are gone; 4 places.
  EXPECT_NEAR(json["test"][0]["loss"].get<double>(), 0.21, 1e-6);
  EXPECT_NEAR(json["test"][0]["dense"].get<double>(), -1, 1e-6);
  EXPECT_EQ(Run({"--max-loss", "1pt"}), 1);
  EXPECT_THAT(err(), HasSubstr("0.05nats"));
}

TEST_F(PruneTest, RefusesDataThatIsNoTest) {
  std::ofstream(Path("mails.jsonl"), std::ios::app)
      << R"({"text": "mail 0 win", "label": "spam", "split": "test"})"
      << "\n";
  EXPECT_EQ(Run({"--keep", "50%"}), 1);
  EXPECT_THAT(err(), HasSubstr("the same text is in rank and in test"));
}

TEST_F(PruneTest, RefusesALabelThatTheModelDoesNotHave) {
  std::ofstream(Path("mails.jsonl"), std::ios::app)
      << R"({"text": "new", "label": "news", "split": "test"})"
      << "\n";
  EXPECT_EQ(Run({"--keep", "50%"}), 1);
  EXPECT_THAT(err(), HasSubstr("is not one of the model's: spam, ham"));
}

TEST_F(PruneTest, ARepairNeedsTheWeights) {
  EXPECT_EQ(Run({"--keep", "50%", "--repair"}), 2);
  EXPECT_THAT(err(), HasSubstr("--repair: needs the weights"));
  EXPECT_EQ(Run({"--keep", "50%", "--repair", "--model", "mail"}), 2);
}

TEST_F(PruneTest, RepairsOnlyWhatIsServed) {
  // Which has 2 layers of 4 heads.
  EXPECT_EQ(Run({"--keep", "50%", "--repair", "--weights",
                 HEADCOUNT_SOURCE_DIR "/models/mailroom"}),
            1);
  EXPECT_THAT(err(), HasSubstr("has other heads than the served model"));
  EXPECT_EQ(server_.examples_asked, 0) << "known before the work begins";
}

TEST_F(PruneTest, AModelWithASlashIsAPath) {
  EXPECT_EQ(Run({"--keep", "50%", "--model", Path("nowhere")}), 1);
  EXPECT_THAT(err(), HasSubstr("there is neither a folder of weights nor"));
  EXPECT_EQ(server_.examples_asked, 0)
      << "the server of --address is not meant";
}

TEST(ReadPruneDataTest, SplitsByHashAlwaysAlike) {
  const PruneFiles files{
      .data = HEADCOUNT_SOURCE_DIR "/tests/data/spam/test.jsonl.gz",
      .splits = {},
      .field = "body"};
  const absl::StatusOr<PruneData> data =
      ReadPruneData(files, {"spam", "ham"}, 64, 1);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_TRUE(data->split_by_hash);
  EXPECT_EQ(data->metric, Metric::kAccuracy);
  EXPECT_THAT(data->of(Split::kRank), SizeIs(64));
  const size_t rest =
      data->of(Split::kSelect).size() + data->of(Split::kTest).size();
  EXPECT_NEAR(static_cast<double>(rest), 0.7 * 701, 40);
  const absl::StatusOr<PruneData> again =
      ReadPruneData(files, {"spam", "ham"}, 64, 1);
  EXPECT_EQ(HashOf(again->of(Split::kRank)).value(),
            HashOf(data->of(Split::kRank)).value());
  EXPECT_THAT(data->not_ranked, SizeIs(701 - 64 - rest));
  const absl::StatusOr<PruneData> other =
      ReadPruneData(files, {"spam", "ham"}, 64, 2);
  EXPECT_NE(HashOf(other->of(Split::kRank)).value(),
            HashOf(data->of(Split::kRank)).value());
}

// 0 and 3: ids of <|bos|> and <|subject|> in models/mailroom/tokenizer.json.
TEST(PutIntoFrameTest, SpecialTokensOfTheTemplateAreSpecial) {
  const PromptFrame frame{.text = "<|bos|>{input}<|subject|>",
                          .weights = HEADCOUNT_SOURCE_DIR "/models/mailroom"};
  std::vector<LabelledText> texts = {
      {.text = "Hi", .label = "", .target = "A title"},
      {.text = "<|subject|>", .label = "", .target = "A title"}};
  ASSERT_TRUE(PutIntoFrame(frame, &texts).ok());
  const std::vector<int32_t>& ids = texts[0].prompt_tokens;
  ASSERT_GE(ids.size(), 3);
  const std::vector<int32_t>& spelled = texts[1].prompt_tokens;
  EXPECT_EQ(ids.front(), 0);
  EXPECT_EQ(ids.back(), 3);
  EXPECT_EQ(spelled.front(), 0);
  EXPECT_EQ(spelled.back(), 3);
  // The one of the text is plain text, of many tokens.
  EXPECT_EQ(std::count(spelled.begin(), spelled.end(), 3), 1);
  EXPECT_GT(spelled.size(), 4);
  EXPECT_NE(HashOf(texts).value(),
            HashOf({{.text = "Hi", .label = "", .target = "A title"},
                    {.text = "<|subject|>", .label = "", .target = "A title"}})
                .value());
}

TEST(PutIntoFrameTest, SaysWhatItNeeds) {
  std::vector<LabelledText> texts = {{.text = "Hi", .label = "spam"}};
  const auto message = [&texts](const PromptFrame& frame) {
    return std::string(PutIntoFrame(frame, &texts).message());
  };
  EXPECT_THAT(message({.text = "{input}", .weights = ""}),
              HasSubstr("needs --weights"));
  const std::string weights = HEADCOUNT_SOURCE_DIR "/models/mailroom";
  EXPECT_THAT(message({.text = "input", .weights = weights}),
              HasSubstr("--template: "));
  EXPECT_THAT(message({.text = "{input}", .weights = weights}),
              HasSubstr("classify.template"));
  EXPECT_TRUE(PutIntoFrame({}, &texts).ok());
}

TEST(RunHashTest, TellsApartWhatScoresDependOn) {
  v1::Model model;
  model.add_labels("spam");
  model.add_labels("ham");
  v1::KvHead* head = model.add_layers()->add_kv_heads();
  head->set_dtype("f16");
  std::set<std::string> hashes;
  const auto keep = [&](const std::string& sha256) {
    hashes.insert(RunHash(model, {}, {}, sha256).value());
    return hashes.size();
  };
  EXPECT_EQ(keep(""), 1);
  EXPECT_EQ(keep(""), 1);
  EXPECT_EQ(keep("a0"), 2);
  EXPECT_EQ(keep("a1"), 3);
  head->set_dtype("int8");
  EXPECT_EQ(keep(""), 4);
  head->set_window(256);
  EXPECT_EQ(keep(""), 5);
  head->set_sink(64);
  EXPECT_EQ(keep(""), 6);
  model.set_labels(1, "not spam");
  EXPECT_EQ(keep(""), 7);
  model.mutable_labels()->SwapElements(0, 1);
  EXPECT_EQ(keep(""), 8);
}

TEST(ScoreJournalTest, DropsALineThatWasCutOff) {
  const std::string path = testing::TempDir() + "/cut.journal";
  std::filesystem::remove(path);
  const ExampleScores scores{.dense = {.logprob = -0.1},
                             .settings = {{.kl = 0.1 + 0.2, .label = "a\"b"}}};
  {
    const auto journal = ScoreJournal::Open(path, "run");
    ASSERT_TRUE(journal.ok()) << journal.status();
    ASSERT_TRUE((*journal)->Add("q", 0, scores).ok());
    ASSERT_TRUE((*journal)->Add("q", 1, scores).ok());
  }
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 3);
  const auto journal = ScoreJournal::Open(path, "run");
  ASSERT_TRUE(journal.ok()) << journal.status();
  ASSERT_NE((*journal)->Find("q", 0), nullptr);
  EXPECT_EQ((*journal)->Find("q", 0)->settings[0].kl, 0.1 + 0.2);  // all digits
  EXPECT_EQ((*journal)->Find("q", 0)->settings[0].label, "a\"b");
  EXPECT_EQ((*journal)->Find("q", 1), nullptr);
  ASSERT_TRUE((*journal)->Add("q", 1, scores).ok());
  EXPECT_TRUE(ScoreJournal::Open(path, "run").ok());
  EXPECT_FALSE(ScoreJournal::Open(path, "other run").ok());
}

TEST(ScoreJournalTest, RefusesAFileThatIsNone) {
  const std::string path = testing::TempDir() + "/none.journal";
  std::ofstream(path) << "{\"text\": \"a mail\"}\n";
  EXPECT_THAT(std::string(ScoreJournal::Open(path, "run").status().message()),
              HasSubstr("is no journal of scores"));
}

TEST(ScoreJournalTest, KeepsAFileThatIsNoneAndHasNoLineFeed) {
  const std::string path = testing::TempDir() + "/no_line_feed.journal";
  const auto read = [&path] {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  std::ofstream(path) << R"({"a":1})";
  EXPECT_THAT(std::string(ScoreJournal::Open(path, "run").status().message()),
              HasSubstr("is no journal of scores"));
  EXPECT_EQ(read(), R"({"a":1})");
  // A first line of its own that was cut off is written again.
  std::ofstream(path) << R"({"format":"head)";
  EXPECT_TRUE(ScoreJournal::Open(path, "run").ok());
  EXPECT_EQ(read(), "{\"format\":\"headcount-scores/1\",\"run\":\"run\"}\n");
}

TEST(GatesOfTest, LeavesWholeLayersOut) {
  PrunableModel model(2);
  model[0] = {.query_heads = 4, .kv_heads = 2, .groups = {}};
  model[1] = model[0];
  const v1::HeadGates gates =
      GatesOf(model, {{}, {.query_heads = {1, 2}, .kv_heads = {}}});
  EXPECT_THAT(gates.layers(0).query_heads(), IsEmpty());
  EXPECT_THAT(gates.layers(1).query_heads(), ElementsAre(1, 0, 0, 1));
}

TEST(PruneFlagsTest, SpellSharesAndLosses) {
  EXPECT_EQ(ParseShare("60%").value(), 0.6);
  for (const char* text : {"", "60", "0%", "101%", "nan%", "-5%"}) {
    EXPECT_FALSE(ParseShare(text).ok()) << text;
  }
  EXPECT_EQ(ParseLoss("", Metric::kAccuracy).value(), 0.01);
  EXPECT_EQ(ParseLoss("0.5pt", Metric::kAccuracy).value(), 0.005);
  EXPECT_EQ(ParseLoss("0.02nats", Metric::kLogprob).value(), 0.02);
  for (const char* text : {"1", "0pt", "1nats", "nanpt", "1%"}) {
    EXPECT_FALSE(ParseLoss(text, Metric::kAccuracy).ok()) << text;
  }
}

}  // namespace
}  // namespace headcount
