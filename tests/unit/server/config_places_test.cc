// Where errors of a configuration say that it is wrong.
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config.h"
#include "server/config_paths.h"
#include "temporary_folder.h"

namespace headcount {
namespace {

using config::v1::ServerConfig;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A key whose map begins in the next line was reported at that line.
TEST(ReadServerConfig, GivesTheLineOfTheKey) {
  const struct {
    std::string yaml;
    std::string error;
  } kCases[] = {
      {"models:\n"
       "  - source: {path: .}\n"
       "    name: a\n"
       "    kv_cach:\n"
       "      dtype: f16\n",
       ":4: models[0].kv_cach: unknown key; did you mean 'kv_cache'?"},
      {"models:\n"
       "  - heads:\n"
       "      pruned:\n"
       "        first:\n"
       "          - 1\n",
       ":4: models[0].heads.pruned.first: 'first' is not"},
      {"queue:\n  requests: 1\nqueue:\n  tokens: 1\n",
       ":3: key 'queue' is here twice; first in line 1"},
      {"threads:\n\nlisten: 127.0.0.1:1\n", ":1: threads: has no value"},
      {"step_tokens: 1\nthreads:", ":2: threads: has no value"},
      // The value is what is wrong.
      {"threads:\n  two\n", ":2: threads: 'two' is not a whole number"},
  };
  const TemporaryFolder folder;
  for (const auto& bad : kCases) {
    SCOPED_TRACE(bad.yaml);
    const std::string file = folder.Write("server.yaml", bad.yaml);
    EXPECT_THAT(std::string(ReadServerConfig(file).status().message()),
                HasSubstr(file + bad.error));
  }
}

// "cannot open nosuch/config.json" named neither file nor key.
TEST(CheckPaths, NamesTheFileAndTheKeyOfWhatIsNotThere) {
  const TemporaryFolder folder;
  folder.Write("there/headcount.yaml",
               "name: there\nheads: {mask_file: gone.json}\n");
  folder.Write("half.json", "{}");
  const std::string yaml =
      std::filesystem::relative(
          folder.Write("l.yaml",
                       "models:\n"
                       "  - source: {path: nosuch}\n"
                       "  - {name: own, source: {path: there}, "
                       "heads: {mask_file: half.json}}\n"
                       "  - source: {path: there}\n"
                       "  - {name: v, source: {variant_of: own}, "
                       "heads: {mask_file: /nowhere.json}}\n"))
          .string();
  PathKeys keys;
  const absl::StatusOr<ServerConfig> config = ReadServerConfig(yaml, &keys);
  ASSERT_TRUE(config.ok()) << config.status();
  const std::string here =
      std::filesystem::path(yaml).parent_path().lexically_normal().string();
  const std::string hint = " (paths are relative to the configuration file)";
  const absl::Status missing = CheckPaths(config->models(0), keys);
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_EQ(missing.message(),
            absl::StrCat(yaml, ": models[0].source.path: ", here,
                         "/nosuch does not exist", hint));
  EXPECT_TRUE(CheckPaths(config->models(1), keys).ok());
  EXPECT_EQ(CheckPaths(config->models(2), keys).message(),
            absl::StrCat(here, "/there/headcount.yaml: heads.mask_file: ", here,
                         "/there/gone.json does not exist", hint));
  EXPECT_EQ(CheckPaths(config->models(3), keys).message(),
            absl::StrCat(yaml,
                         ": models[3].heads.mask_file: /nowhere.json does not "
                         "exist"));
  // Who does not know the file still knows the key.
  EXPECT_EQ(CheckPaths(config->models(0)).message(),
            absl::StrCat("source.path: ", here, "/nosuch does not exist"));
}

TEST(AddModelsOfFolder, NamesTheFileThatNamesTheFolder) {
  const TemporaryFolder folder;
  const std::string yaml = folder.Write("server.yaml", "models_dir: nosuch\n");
  PathKeys keys;
  absl::StatusOr<ServerConfig> config = ReadServerConfig(yaml, &keys);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(std::string(AddModelsOfFolder(&*config, &keys).message()),
              HasSubstr(yaml + ": models_dir: "));
  EXPECT_THAT(std::string(AddModelsOfFolder(&*config).message()),
              StartsWith("models_dir: "));
}

TEST(ValidateServerConfig, PutsThePlaceOfAModelBeforeItsKeys) {
  ServerConfig config = DefaultServerConfig();
  for (int i = 0; i < 2; ++i) {
    config::v1::ModelSpec* spec = config.add_models();
    spec->set_name("twice");
    spec->mutable_source()->set_path("x");
    spec->set_precision("fast");
    spec->set_preload("on");
    spec->mutable_kv_cache()->set_dtype("f16");
  }
  const std::vector<std::string> places = {"a.yaml: models[0].", "b: "};
  EXPECT_EQ(ValidateServerConfig(config, places).message(),
            "b: name: 'twice' is the name of two models");
  config.mutable_models(1)->set_name("other");
  config.mutable_models(0)->mutable_source()->clear_path();
  config.mutable_models(0)->mutable_source()->set_variant_of("nobody");
  config.mutable_models(0)->clear_precision();
  EXPECT_EQ(ValidateServerConfig(config, places).message(),
            "a.yaml: models[0].source.variant_of: there is no model 'nobody'");
}

}  // namespace
}  // namespace headcount
