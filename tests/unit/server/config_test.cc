#include "server/config.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "temporary_folder.h"

namespace headcount {
namespace {

using config::v1::ModelSpec;
using config::v1::ServerConfig;
using ::testing::HasSubstr;

constexpr char kData[] = HEADCOUNT_SOURCE_DIR "/tests/data/server/";

TEST(ReadServerConfig, TakesEveryKeyOfTheDesign) {
  const absl::StatusOr<ServerConfig> config =
      ReadServerConfig(absl::StrCat(kData, "full.yaml"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen(), "0.0.0.0:9000");
  EXPECT_EQ(config->metrics_listen(), "[::1]:0");
  EXPECT_EQ(config->log_format(), "json");
  const EngineOptions options = EngineOptionsOf(*config);
  EXPECT_EQ(options.kv_pool_bytes, 64 << 20);
  EXPECT_EQ(options.step_tokens, 128);
  EXPECT_EQ(options.max_queued_requests, 16);
  EXPECT_EQ(options.max_queued_tokens, 5000);
  EXPECT_EQ(options.max_queued_bytes, 1 << 20);
  EXPECT_FALSE(options.prefix_cache);
  EXPECT_DOUBLE_EQ(options.watermark, 0.05);
  EXPECT_EQ(AdminOf(*config), Admin::kOff);
  EXPECT_EQ(DrainGraceOf(*config), absl::ZeroDuration());
  EXPECT_EQ(DrainDeadlineOf(*config), absl::Milliseconds(1500));

  ASSERT_EQ(config->models_size(), 2);
  const ModelSpec& pruned = config->models(0);
  EXPECT_EQ(pruned.name(), "mail-pruned");
  EXPECT_EQ(pruned.source().path(), absl::StrCat(kData, "weights"));
  EXPECT_EQ(pruned.heads().mask_file(), absl::StrCat(kData, "half.json"));
  const HeadMask mask = HeadMaskOf(pruned);
  EXPECT_EQ(mask.pruned.at(0), (std::set<int>{1, 5}));
  EXPECT_EQ(mask.pruned.at(3), (std::set<int>{0, 1, 2}));
  EXPECT_EQ(KvDtypeOf(pruned), KvDtype::kInt8);
  EXPECT_EQ(
      KvHeadRulesOf(pruned),
      (KvHeadRules{{0,
                    {{1,
                      {.dtype = KvDtype::kF16,
                       .retention = Retention{.window = 256, .sink = 64}}}}},
                   {3,
                    {{0, {KvDtype::kInt4}},
                     {1, {KvDtype::kInt4}},
                     {2, {KvDtype::kInt4}}}},
                   {4, {{2, {.retention = Retention{.window = 100}}}}}}));
  EXPECT_EQ(pruned.limits().max_context(), 2048);
  EXPECT_EQ(pruned.limits().max_concurrent(), 8);
  EXPECT_EQ(pruned.classify().template_(), "{input} is");
  EXPECT_EQ(pruned.classify().labels(1), "no");
  EXPECT_EQ(QuotaOf(pruned).floor_bytes, 8 << 20);
  EXPECT_EQ(QuotaOf(pruned).ceiling_bytes, 32 << 20);
  EXPECT_EQ(ShareOf(pruned), 2.5);
  EXPECT_EQ(pruned.preload(), "off");

  // From the headcount.yaml beside the weights, apart from the name.
  const ModelSpec& exact = config->models(1);
  EXPECT_EQ(exact.name(), "mail-exact");
  EXPECT_EQ(exact.precision(), "exact");
  EXPECT_EQ(QuotaOf(exact).ceiling_bytes, 0);
  EXPECT_EQ(ShareOf(exact), 1);
  EXPECT_EQ(KvDtypeOf(exact), KvDtype::kF32);
  EXPECT_EQ(exact.classify().labels(0), "7");
  EXPECT_EQ(exact.limits().max_context(), 512);

  EXPECT_TRUE(ValidateServerConfig(*config).ok())
      << ValidateServerConfig(*config);
}

TEST(ReadServerConfig, OfAnEmptyFileIsTheDefault) {
  const TemporaryFolder folder;
  const absl::StatusOr<ServerConfig> config =
      ReadServerConfig(folder.Write("server.yaml", "# nothing\n"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->SerializeAsString(),
            DefaultServerConfig().SerializeAsString());
  EXPECT_THAT(std::string(ValidateServerConfig(*config).message()),
              HasSubstr("models: missing"));
}

struct BadYaml {
  std::string text;
  std::string error;  // a part of the message
};

TEST(ReadServerConfig, RefusesWhatIsWrongAndSaysWhere) {
  const std::string model = "models: [{source: {path: .}, ";
  const std::string kv_heads = "name: a, kv_cache: {heads: [";
  std::string deep;
  for (int i = 0; i < 20; ++i) deep += "- ";
  deep += "x";
  const std::vector<BadYaml> cases = {
      {"lisen: x", ":1: lisen: unknown key; did you mean 'listen'?"},
      {"\n\nxyzzy: 1", ":3: xyzzy: unknown key; known here: listen, "},
      {"queue: {request: 3}", "queue.request: unknown key; did you mean"},
      {"queue: 3", "queue: must be a map"},
      {"queue: [3]", "queue: must be a map"},
      {"- 1", "must be a map"},
      {"models: {a: b}", "models: must be a list"},
      {"models: [3]", "models[0]: must be a map"},
      {"threads: two", "threads: 'two' is not a whole number"},
      {"threads: 1.5", "threads: '1.5' is not a whole number"},
      {"threads: 99999999999", "is not a whole number in range"},
      {"threads: [1]", "threads: must be a single value"},
      {"threads:", "threads: has no value"},
      {"threads: -1", "threads: -1 is not from 0 to"},
      {"device: gpu", "device: 'gpu' is not auto, cpu, cuda or a GPU"},
      {"device: cuda:x", "device: 'cuda:x' is not auto"},
      {"step_tokens: 0", "step_tokens: 0 is not from 1 to"},
      {"watermark: .nan", "watermark:"},
      {"watermark: 0.9", "watermark: 0.9 is not from 0 to 0.5"},
      {"kv_pool: lots", "kv_pool: 'lots'"},
      {"kv_pool: 0", "kv_pool: must be over 0"},
      {"drain: {grace: 5}", "drain.grace: '5'"},
      {"drain: {deadline: 2h}", "drain.deadline: 2h is not from 0s to"},
      {"listen: here", "listen: 'here' is not host:port"},
      {"listen: ::1:50051", "listen: '::1:50051' is not host:port"},
      {"listen: 127.0.0.1:70000", "listen: '127.0.0.1:70000'"},
      {"log_format: xml", "log_format: 'xml' is neither 'text' nor 'json'"},
      {"threads: 1\nthreads: 2", ":2: key 'threads' is here twice; first in"},
      {"queue: &a {requests: 1}", "anchors are not allowed"},
      {"queue: *a", ":1: "},
      {"threads: !!int 3", "tags are not allowed"},
      {"[1]: 2", "a key must be a plain value"},
      {"a: b: c", ":1: "},
      {"a: [1", ": "},
      {"threads: 1\n---\nthreads: 2", "a second document"},
      {deep, "nested deeper than 16"},
      {std::string((1 << 20) + 1, '#'), "bytes; at most"},
      {"models: [{}]", "models[0].source.path: missing"},
      {model + "name: ../x}]", "models[0].name: '../x' is not a model name"},
      {model + "heads: {pruned: {x: [1]}}}]", "models[0].heads.pruned.x: 'x'"},
      {model + "heads: {pruned: {00: [1]}}}]", "heads.pruned.00: '00' is not"},
      {model + "name: a, heads: {pruned: {0: [3-1]}}}]",
       ": models[0].heads.pruned.0[0]:"},
      {model + "name: a, heads: {pruned: {-1: [1]}}}]",
       "heads.pruned.-1: layers count from 0"},
      {model + "name: a, heads: {pruned: {0: 5}}}]",
       "models[0].heads.pruned.0: must be a list"},
      {model + "kv_cache: {scale: per_head}}]",
       "models[0].kv_cache.scale: unknown key; known here: dtype, quota, "
       "heads"},
      {model + "name: a, share: -2}]", "models[0].share: -2 is not from"},
      {model + "name: a, share: .inf}]",
       "models[0].share: '.inf' is not a number"},
      {model + "name: a, preload: later}]", "models[0].preload: 'later' is"},
      {model + "name: a, kv_cache: {quota: {min: some}}}]",
       "models[0].kv_cache.quota.min: 'some'"},
      {model + "name: a, kv_cache: {quota: {max: 0}}}]",
       "models[0].kv_cache.quota.max: must be over 0"},
      {model + "name: a, kv_cache: {quota: {min: 2GiB, max: 1GiB}}}]",
       "kv_cache.quota.min: 2GiB is over kv_cache.quota.max, 1GiB"},
      {"queue: {bytes: many}", "queue.bytes: 'many'"},
      {"kv_pool: 99%", "kv_pool: '99%' is not a size"},
      {"kv_pool: 0%", "kv_pool: '0%' is not a size"},
      {"kv_pool: x%", "kv_pool: 'x%' is not a size"},
      {"admin: yes", "admin: 'yes' is not local, any or off"},
      {"remote_admin: off", ":1: remote_admin: unknown key; "},
      {"calibration: please", "calibration: 'please' is neither 'on'"},
      {"prefix_cache: maybe", "prefix_cache: 'maybe' is neither 'on'"},
      {"models: [{source: {variant_of: x}}]",
       "models[0].name: missing; a variant"},
      {model + "name: a, kv_cache: {dtype: int3}}]",
       "kv_cache.dtype: \"int3\" is not a KV dtype; known: f32, f16, bf16, "
       "fp8_e4m3, int8, int4"},
      {model + kv_heads + "{kv_heads: [1], dtype: f16}]}}]",
       "models[0].kv_cache.heads[0].layer: missing"},
      {model + kv_heads + "{layer: -1, kv_heads: [1], dtype: f16}]}}]",
       "kv_cache.heads[0].layer: layers count from 0"},
      {model + kv_heads + "{layer: 0, dtype: f16}]}}]",
       "kv_cache.heads[0].kv_heads: missing; a list such as [0, 2-3]"},
      {model + kv_heads + "{layer: 0, kv_heads: [1, 3-2], dtype: f16}]}}]",
       "kv_cache.heads[0].kv_heads[1]: "},
      {model + kv_heads + "{layer: 0, kv_heads: [1]}]}}]",
       "kv_cache.heads[0]: has neither dtype nor streaming"},
      {model + kv_heads +
           "{layer: 0, kv_heads: [1], streaming: {sink: 16}}]}}]",
       "kv_cache.heads[0].streaming.recent: 0 tokens"},
      {model + kv_heads +
           "{layer: 0, kv_heads: [1], streaming: {sink: 20, recent: 9}}]}}]",
       "kv_cache.heads[0].streaming.sink: 20 tokens"},
      {model + kv_heads +
           "{layer: 0, kv_heads: [1], streaming: {window: 9}}]}}]",
       "window"},
      {model + kv_heads + "{layer: 0, kv_heads: [1], dtype: fp8}]}}]",
       "kv_cache.heads[0].dtype: \"fp8\" is not a KV dtype"},
      {model + kv_heads +
           "{layer: 0, kv_heads: [0-2], dtype: f16}, "
           "{layer: 0, kv_heads: [2], dtype: int8}]}}]",
       "kv_cache.heads[1].kv_heads: KV head 2 of layer 0 is in "
       "kv_cache.heads[0], too"},
      {model + "precision: exact, " + kv_heads +
           "{layer: 0, kv_heads: [1], dtype: int8}]}}]",
       "kv_cache.heads[0].dtype: 'int8' contradicts precision: exact"},
      {model + "name: a, precision: high}]", "precision: 'high' is neither"},
      {model + "name: a, precision: exact, kv_cache: {dtype: f16}}]",
       "kv_cache.dtype: 'f16' contradicts precision: exact"},
      {model + "name: a, limits: {max_context: -1}}]", "limits.max_context:"},
      {model + "name: a, classify: {labels: [a, b]}}]",
       "classify.template: missing"},
      {model + "name: a, classify: {template: '{input}', labels: [a]}}]",
       "classify.labels: 1 labels; from 2"},
      {model + "name: a, classify: {template: '{input}', labels: [a, a]}}]",
       "classify.labels[1]: 'a' is here twice"},
  };
  const TemporaryFolder folder;
  for (const BadYaml& bad : cases) {
    SCOPED_TRACE(bad.text.substr(0, 80));
    const std::string file = folder.Write("server.yaml", bad.text);
    const absl::StatusOr<ServerConfig> config = ReadServerConfig(file);
    ASSERT_FALSE(config.ok());
    EXPECT_TRUE(absl::IsInvalidArgument(config.status()));
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(bad.error));
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(file));
  }
}

TEST(ReadServerConfig, NamesAFileThatIsNotThere) {
  const absl::StatusOr<ServerConfig> config =
      ReadServerConfig("/nowhere/server.yaml");
  EXPECT_TRUE(absl::IsNotFound(config.status()));
  EXPECT_THAT(std::string(config.status().message()),
              HasSubstr("/nowhere/server.yaml: there is no such file"));
}

TEST(ReadModelSpec, OfAFolderWithoutAFileIsTheDefault) {
  const TemporaryFolder folder;
  folder.Write("tiny/config.json", "{}");
  const std::string path = (folder.path() / "tiny/").string();
  const absl::StatusOr<ModelSpec> spec = ReadModelSpec(path);
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name(), "tiny");
  EXPECT_EQ(spec->source().path(), path);
  EXPECT_EQ(spec->precision(), "fast");
  EXPECT_EQ(spec->kv_cache().dtype(), "f16");
  EXPECT_FALSE(spec->has_classify());
}

TEST(ReadModelSpec, OfAGgufFileIsNamedAfterIt) {
  const TemporaryFolder folder;
  const std::string path =
      folder.Write("some/SmolLM2-135M-Instruct.Q4_1.gguf", "GGUF");
  folder.Write("some/headcount.yaml", "name: of_the_folder\n");
  const std::string file = folder.Write(
      "server.yaml",
      "models: [{source: {path: some/SmolLM2-135M-Instruct.Q4_1.gguf}}]");
  const absl::StatusOr<ServerConfig> config = ReadServerConfig(file);
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->models_size(), 1);
  const absl::StatusOr<ModelSpec> spec = ReadModelSpec(path);
  ASSERT_TRUE(spec.ok()) << spec.status();
  for (const ModelSpec& found : {config->models(0), *spec}) {
    EXPECT_EQ(found.name(), "SmolLM2-135M-Instruct.Q4_1");
    EXPECT_EQ(found.source().path(), path);
  }
}

TEST(ReadModelSpec, TakesTheFileBesideTheWeights) {
  const absl::StatusOr<ModelSpec> spec =
      ReadModelSpec(HEADCOUNT_SOURCE_DIR "/models/mailroom");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name(), "mailroom");
  EXPECT_EQ(spec->classify().template_(), "<|bos|>{input}<|label|>");
  EXPECT_EQ(spec->classify().labels_size(), 2);
}

TEST(ReadModelSpec, OfAFileElsewhereReplacesWholeKeys) {
  const TemporaryFolder folder;
  folder.Write("base/headcount.yaml",
               "name: base\nlimits: {max_context: 9, max_concurrent: 2}\n"
               "classify: {template: '{input}', labels: [a, b]}\n");
  const std::string file = folder.Write("variant/headcount.yaml",
                                        "name: variant\n"
                                        "source: {path: ../base}\n"
                                        "limits: {max_context: 7}\n"
                                        "heads: {mask_file: mask.json}\n");
  for (const std::string& path : {file, (folder.path() / "variant").string()}) {
    const absl::StatusOr<ModelSpec> spec = ReadModelSpec(path);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(spec->name(), "variant");
    EXPECT_EQ(spec->source().path(), (folder.path() / "base").string());
    EXPECT_EQ(spec->limits().max_context(), 7);
    EXPECT_EQ(spec->limits().max_concurrent(), 0);
    EXPECT_EQ(spec->heads().mask_file(),
              (folder.path() / "variant/mask.json").string());
    EXPECT_EQ(spec->classify().labels_size(), 2);
  }
}

TEST(ReadModelSpec, SaysWhereTheFileBesideTheWeightsIsWrong) {
  const TemporaryFolder folder;
  const std::string file =
      folder.Write("tiny/headcount.yaml", "name: tiny\nshares: 2\n");
  const absl::StatusOr<ModelSpec> spec =
      ReadModelSpec((folder.path() / "tiny").string());
  ASSERT_FALSE(spec.ok());
  EXPECT_THAT(std::string(spec.status().message()),
              HasSubstr(absl::StrCat(file, ":2: shares: unknown key")));
}

TEST(ReadModelSpec, NamesAPathThatIsNotThere) {
  EXPECT_TRUE(absl::IsNotFound(ReadModelSpec("/nowhere").status()));
}

TEST(ValidateServerConfig, RefusesANameTwice) {
  ServerConfig config = DefaultServerConfig();
  const absl::StatusOr<ModelSpec> spec =
      ReadModelSpec(HEADCOUNT_SOURCE_DIR "/models/mailroom");
  ASSERT_TRUE(spec.ok());
  *config.add_models() = *spec;
  EXPECT_TRUE(ValidateServerConfig(config).ok());
  *config.add_models() = *spec;
  EXPECT_THAT(
      std::string(ValidateServerConfig(config).message()),
      HasSubstr("models[1].name: 'mailroom' is the name of two models"));
}

TEST(IsModelName, KeepsToItsAlphabet) {
  for (const char* name : {"a", "A9", "llama-3.1_8b"}) {
    EXPECT_TRUE(IsModelName(name)) << name;
  }
  for (const char* name :
       {"", ".", "..", "-a", "a/b", "../a", "a b", "a\n", "\xc3\xa9", "a:b",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}) {
    EXPECT_FALSE(IsModelName(name)) << name;
  }
}

}  // namespace
}  // namespace headcount
