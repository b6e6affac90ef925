// source.variant_of in YAML: what is taken, and what is refused.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config.h"
#include "temporary_folder.h"
#include "tests/unit/mailroom.h"

namespace headcount {
namespace {

using config::v1::ModelSpec;
using config::v1::ServerConfig;
using ::testing::HasSubstr;

// A server of mailroom, named "mail" and with the keys `base`, and of a model
// that is written `variant`.
std::string Yaml(const std::string& base, const std::string& variant) {
  return absl::StrCat("models:\n  - {", variant,
                      "}\n  - {name: mail, source: ", "{path: ", kMailroom, "}",
                      base, "}\n");
}

absl::Status Check(const std::string& yaml) {
  const TemporaryFolder folder;
  const absl::StatusOr<ServerConfig> config =
      ReadServerConfig(folder.Write("server.yaml", yaml));
  return config.ok() ? ValidateServerConfig(*config) : config.status();
}

TEST(VariantConfig, TakesKeysOfItsOwnAndLeavesTheRestToItsBase) {
  const TemporaryFolder folder;
  const absl::StatusOr<ServerConfig> config = ReadServerConfig(folder.Write(
      "server.yaml", Yaml(", preload: off",
                          "name: spam, source: {variant_of: mail}, "
                          "heads: {pruned: {0: [0-2]}, mask_file: half.json}, "
                          "kv_cache: {dtype: f32, quota: {min: 4MiB}}, "
                          "limits: {max_context: 512, max_concurrent: 3}")));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(ValidateServerConfig(*config).ok())
      << "a variant may stand before its base";
  const ModelSpec& spec = config->models(0);
  EXPECT_TRUE(IsVariant(spec));
  EXPECT_FALSE(IsVariant(config->models(1)));
  EXPECT_EQ(spec.source().variant_of(), "mail");
  EXPECT_EQ(spec.source().path(), "");
  EXPECT_EQ(spec.heads().mask_file(), (folder.path() / "half.json").string());
  EXPECT_EQ(HeadMaskOf(spec).pruned.at(0), (std::set<int>{0, 1, 2}));
  EXPECT_EQ(QuotaOf(spec).floor_bytes, 4 << 20);
  EXPECT_EQ(spec.limits().max_concurrent(), 3);
  EXPECT_EQ(spec.precision(), "");
  EXPECT_EQ(spec.preload(), "");
}

TEST(VariantConfig, MayBeAFileOrAFolderOfItsOwn) {
  const TemporaryFolder folder;
  const std::string file = folder.Write(
      "headcount.yaml", "name: spam\nsource: {variant_of: mailroom}\n");
  for (const std::string& path : {file, folder.path().string()}) {
    const absl::StatusOr<ModelSpec> spec = ReadModelSpec(path);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(spec->name(), "spam");
    EXPECT_EQ(spec->source().variant_of(), "mailroom");
  }
}

TEST(VariantConfig, RefusesWhatAVariantCannotHave) {
  const std::string variant = "name: spam, source: {variant_of: mail}";
  const struct {
    std::string yaml;
    std::string error;
  } kCases[] = {
      {Yaml("", "source: {variant_of: mail}"),
       "models[0].name: missing; a variant has no folder to be named after"},
      {Yaml("", "name: spam, source: {}"), "models[0].source.path: missing"},
      {Yaml("", absl::StrCat("name: spam, source: {variant_of: mail, path: ",
                             kMailroom, "}")),
       "models[0].source: has path and variant_of"},
      {Yaml("", variant + ", precision: exact"),
       "models[0].precision: is that of the weights; say it of the base"},
      {Yaml("", variant + ", share: 2"),
       "models[0].share: a variant runs in the steps of its base"},
      {Yaml("", variant + ", kv_cache: {dtype: int3}"),
       "models[0].kv_cache.dtype: \"int3\" is not a KV dtype"},
      {Yaml("", variant + ", preload: later"),
       "models[0].preload: 'later' is neither"},
      {Yaml("", "name: spam, source: {variant_of: spam}"),
       "models[0].source.variant_of: 'spam' is the name of this model itself"},
      {Yaml("", "name: spam, source: {variant_of: male}"),
       "models[0].source.variant_of: there is no model 'male'"},
      {Yaml("", variant + "}\n  - {name: third, source: {variant_of: spam}"),
       "models[1].source.variant_of: 'spam' is a variant itself"},
      // A circle of two.
      {Yaml("",
            "name: spam, source: {variant_of: ham}}\n"
            "  - {name: ham, source: {variant_of: spam}"),
       "models[0].source.variant_of: 'ham' is a variant itself"},
      {Yaml(", preload: off", variant + ", preload: on"),
       "models[0].preload: 'on', but its base, 'mail', has 'off'"},
      {Yaml(", precision: exact", variant + ", kv_cache: {dtype: f16}"),
       "models[0].kv_cache.dtype: 'f16' contradicts precision: exact of its "
       "base, 'mail'"},
  };
  for (const auto& bad : kCases) {
    SCOPED_TRACE(bad.yaml);
    const absl::Status status = Check(bad.yaml);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.error));
  }
  EXPECT_TRUE(Check(Yaml("", variant)).ok());
}

}  // namespace
}  // namespace headcount
