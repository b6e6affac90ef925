#include "cli/server_flags.h"

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "cli/check.h"
#include "cli/command.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "heads/kv_geometry.h"
#include "recorder.h"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/format/temp_folder.h"
#include "tests/unit/mailroom.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

// What `serve` would run with these arguments.
absl::StatusOr<config::v1::ServerConfig> Configure(
    const std::vector<std::string>& args) {
  Recorder recorder;
  ServerFlags flags;
  absl::StatusOr<config::v1::ServerConfig> config =
      absl::UnknownError("did not run");
  const std::unique_ptr<CLI::App> root = NewCommandLine();
  CLI::App& app = AddCommand(*root, "serve", "");
  AddServerFlags(app, &flags);
  std::vector<std::string> words = {"serve"};
  words.insert(words.end(), args.begin(), args.end());
  RunCommand(*root,
             {{.app = &app,
               .run =
                   [&](Console&) {
                     config = ReadConfiguration(flags);
                     return config.status();
                   }}},
             words, recorder.console);
  return config;
}

std::string WriteYaml(const std::string& text) {
  std::string path = testing::TempDir() + "/cli_server.yaml";
  std::ofstream(path) << text;
  return path;
}

TEST(ServerFlagsTest, FlagOverEnvironmentOverFileOverDefault) {
  const std::string path =
      WriteYaml("listen: 127.0.0.1:1\nkv_pool: 64MiB\nstep_tokens: 32\n");
  setenv("HEADCOUNT_LISTEN", "127.0.0.1:2", 1);
  setenv("HEADCOUNT_KV_POOL", "96MiB", 1);
  const auto config =
      Configure({kMailroom, "--config", path, "--listen", "127.0.0.1:3"});
  unsetenv("HEADCOUNT_LISTEN");
  unsetenv("HEADCOUNT_KV_POOL");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen(), "127.0.0.1:3") << "flag";
  EXPECT_EQ(config->kv_pool(), "96MiB") << "environment";
  EXPECT_EQ(config->step_tokens(), 32) << "file";
  EXPECT_EQ(config->queue().requests(), 1024) << "default";
}

TEST(ServerFlagsTest, AMaskAndANameAreForTheModelOnTheCommandLine) {
  const std::string mask = std::string(kMailroom) + "/heads_half.json";
  const auto config =
      Configure({kMailroom, "--name", "half", "--mask-file", mask});
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->models_size(), 1);
  EXPECT_EQ(config->models(0).name(), "half");
  EXPECT_EQ(config->models(0).heads().mask_file(), mask);
}

TEST(ServerFlagsTest, CalibrationIsServedOnlyIfAskedFor) {
  const auto plain = Configure({kMailroom});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->calibration(), "off");
  const auto asked = Configure({kMailroom, "--calibration"});
  ASSERT_TRUE(asked.ok()) << asked.status();
  EXPECT_EQ(asked->calibration(), "on");
  setenv("HEADCOUNT_CALIBRATION", "false", 1);
  const auto denied = Configure({kMailroom});
  unsetenv("HEADCOUNT_CALIBRATION");
  ASSERT_TRUE(denied.ok()) << denied.status();
  EXPECT_EQ(denied->calibration(), "off");
}

TEST(ServerFlagsTest, ExactPrecisionCachesInFloat32) {
  const auto config = Configure({kMailroom, "--precision", "exact"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->models(0).precision(), "exact");
  EXPECT_EQ(config->models(0).kv_cache().dtype(), "f32");
}

TEST(ServerFlagsTest, FlagsAreCheckedLikeTheFile) {
  EXPECT_FALSE(Configure({kMailroom, "--step-tokens", "0"}).ok());
  EXPECT_FALSE(Configure({kMailroom, "--listen", "nowhere"}).ok());
  EXPECT_FALSE(Configure({kMailroom, kMailroom}).ok()) << "one name twice";
  EXPECT_TRUE(absl::IsNotFound(Configure({"/no/such/model"}).status()));
}

TEST(ServerFlagsTest, ErrorsOfAModelSayWhichFileNamesIt) {
  const std::string mailroom = absl::StrCat("{source: {path: ", kMailroom, "}");
  const std::string twice =
      WriteYaml(absl::StrCat("models: [", mailroom, "}, ", mailroom, "}]"));
  const auto error = [](const std::vector<std::string>& args) {
    return std::string(Configure(args).status().message());
  };
  EXPECT_EQ(error({"--config", twice}),
            twice + ": models[1].name: 'mailroom' is the name of two models");
  const std::string variant = WriteYaml(absl::StrCat(
      "models: [", mailroom, "}, {name: v, source: {variant_of: mail}}]"));
  EXPECT_EQ(
      error({"--config", variant}),
      variant + ": models[1].source.variant_of: there is no model 'mail'");
  const std::string once = WriteYaml(absl::StrCat("models: [", mailroom, "}]"));
  EXPECT_EQ(
      error({"--config", once, kMailroom}),
      std::string(kMailroom) + ": name: 'mailroom' is the name of two models");
}

// Also where the file has the same path under another key.
TEST(ServerFlagsTest, AFolderThatIsNotThereIsToldWithItsFileOrFlag) {
  const auto error = [](const std::vector<std::string>& args) {
    return std::string(Configure(args).status().message());
  };
  const std::string of_file = WriteYaml("models_dir: /nowhere/at/all");
  EXPECT_THAT(error({"--config", of_file}),
              HasSubstr(of_file + ": models_dir: "));
  const std::string yaml =
      WriteYaml("models: [{source: {path: /nowhere/at/all}}]");
  EXPECT_THAT(error({"--config", yaml, "--models-dir", "/nowhere/at/all"}),
              HasSubstr("--models-dir: "));
}

class CheckTest : public testing::Test {
 protected:
  int Check(std::vector<std::string> args) {
    args.insert(args.begin(), "check");
    args.insert(args.end(), {"--kv-pool", pool_});
    const std::unique_ptr<CLI::App> root = NewCommandLine();
    return RunCommand(*root, {CheckCommand(*root)}, args, recorder_.console);
  }

  std::string pool_ = "64MiB";
  Recorder recorder_;
};

TEST_F(CheckTest, ThePoolCanBeAShareOfWhatIsFree) {
  pool_ = "1%";
  ASSERT_EQ(Check({kMailroom, "--output", "json"}), 0) << recorder_.err.str();
  const auto bytes =
      ParseOutput(recorder_.out.str())["kv_pool_bytes"].get<int64_t>();
  EXPECT_GT(bytes, 0);
  EXPECT_EQ(bytes % SlabBytes(bytes), 0);
  pool_ = "0.00000001%";
  EXPECT_EQ(Check({kMailroom}), 1);
  EXPECT_THAT(recorder_.err.str(),
              HasSubstr("is less than 2.0 MiB, the least"));
}

TEST_F(CheckTest, ShowsHeadsAndCostWithoutServing) {
  EXPECT_EQ(Check({kMailroom, "--mask-file",
                   std::string(kMailroom) + "/heads_half.json"}),
            0)
      << recorder_.err.str();
  const std::string text = recorder_.out.str();
  EXPECT_THAT(text, HasSubstr("KV heads      12 of 24, 12 pruned"));
  EXPECT_THAT(text, HasSubstr("1.5 KiB, 50.0 % less than the 3.0 KiB"));
  EXPECT_THAT(text, HasSubstr("    2  ... ... ... ...          0/12  0/4"));
  EXPECT_THAT(text, HasSubstr("43,690 tokens of mailroom alone"));
}

TEST_F(CheckTest, AnswersAsJson) {
  EXPECT_EQ(Check({kMailroom, "--output", "json"}), 0);
  const Json json = ParseOutput(recorder_.out.str());
  EXPECT_EQ(json["kv_pool_bytes"], 64 << 20);
  EXPECT_EQ(json["models"][0]["kv_pool_tokens"], (64 << 20) / 3072);
  EXPECT_EQ(json["models"][0]["files"]["format"], "safetensors");
}

TEST_F(CheckTest, SaysWhatAFileIsThatCannotBeServed) {
  const TempFolder folder;
  const std::string path = folder.Write("other.gguf", GgufWriter().File());
  EXPECT_EQ(Check({path}), 1);
  EXPECT_THAT(recorder_.out.str(), HasSubstr("format  GGUF"));
  EXPECT_THAT(recorder_.out.str(), HasSubstr("not served: " + path));
  EXPECT_THAT(recorder_.err.str(),
              HasSubstr("has no key 'general.architecture'"));
  EXPECT_EQ(Check({path, "--output", "json"}), 1);
  EXPECT_EQ(Check({folder.Write("x.safetensors", "")}), 1);
  EXPECT_THAT(recorder_.err.str(), HasSubstr("name the folder"));
}

TEST_F(CheckTest, ExitsWith1AndTheFirstError) {
  EXPECT_EQ(Check({kMailroom, "--mask-file", "/no/such/mask.json"}), 1);
  EXPECT_THAT(recorder_.err.str(),
              HasSubstr("--mask-file: /no/such/mask.json does not exist"));
}

TEST_F(CheckTest, NamesTheFileAndTheKeyOfAPathThatIsNotThere) {
  const std::string file =
      WriteYaml("models: [{source: {path: /no/such/model}}]");
  EXPECT_EQ(Check({"--config", file}), 1);
  EXPECT_THAT(recorder_.err.str(),
              HasSubstr(file + ": models[0].source.path: /no/such/model does "
                               "not exist\n"));
  EXPECT_THAT(recorder_.out.str(),
              HasSubstr("not served: /no/such/model does not exist\n"));
}

}  // namespace
}  // namespace headcount
