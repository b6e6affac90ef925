#include "model/heads_file.h"

#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "heads/head_layout.h"
#include "nlohmann/json.hpp"
#include "tests/unit/model/checkpoint_writer.h"

namespace headcount {
namespace {

using ::nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

ModelConfig SmallConfig() {
  ModelConfig config;
  config.architecture = "llama";
  config.layers = 3;
  config.head_dim = 16;
  config.heads.assign(3, LayerShape{6, 2});
  return config;
}

json SmallFile() {
  json file = json::parse(R"({
    "format": "heads/1",
    "base": {"arch": "llama", "layers": 3, "q_heads": 6, "kv_heads": 2,
             "head_dim": 16},
    "weights": "full",
    "layers": [{"i": 0, "drop_q": [1, 4], "drop_kv": []},
               {"i": 2, "drop_q": [3, 4, 5], "drop_kv": [1]}]})");
  file["base"]["sha256"] = std::string(64, 'a');
  return file;
}

TEST(HeadsFile, GivesTheMaskAndTheWeightsItIsFor) {
  const auto file = ParseHeadsFile(SmallFile(), SmallConfig());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->base_sha256, std::string(64, 'a'));
  EXPECT_THAT(file->mask.pruned, SizeIs(2));
  EXPECT_THAT(file->mask.pruned.at(0), ElementsAre(1, 4));
  EXPECT_THAT(file->mask.pruned.at(2), ElementsAre(3, 4, 5));
}

TEST(HeadsFile, NamesTheTensorsOfARepair) {
  json json_file = SmallFile();
  json_file["repair"] = {{"kind", "ridge_wo"}, {"tensors", "r.safetensors"}};
  const auto file = ParseHeadsFile(json_file, SmallConfig());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->repair, "r.safetensors");
}

TEST(HeadsFile, NeedsNeitherEvidenceNorHashNorDroppedHeads) {
  json json_file = SmallFile();
  json_file.erase("weights");
  json_file["base"].erase("sha256");
  json_file["layers"] = json::parse(R"([{"i": 1}])");
  const auto file = ParseHeadsFile(json_file, SmallConfig());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->base_sha256, IsEmpty());
  EXPECT_THAT(file->mask.pruned.at(1), IsEmpty());
}

TEST(HeadsFile, DropsAllHeadsOfALayerByOneWord) {
  for (const char* layer :
       {R"({"i": 1, "drop_attention": true})",
        R"({"i": 1, "drop_attention": true, "drop_q": [0, 1, 2, 3, 4, 5]})",
        R"({"i": 1, "drop_attention": true, "drop_q": [0, 1, 2, 3, 4, 5],
            "drop_kv": [0, 1]})",
        R"({"i": 1, "drop_attention": false, "drop_q": [5, 4, 3, 2, 1, 0],
            "drop_kv": [1, 0]})"}) {
    json file = SmallFile();
    file["layers"][0] = json::parse(layer);
    const auto parsed = ParseHeadsFile(file, SmallConfig());
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_THAT(parsed->mask.pruned.at(1), ElementsAre(0, 1, 2, 3, 4, 5));
  }
}

TEST(HeadsFile, KeepsTheFirstAndTheLastTokensOfStreamingHeads) {
  json file = SmallFile();
  file["layers"][0]["stream"] =
      json::parse(R"([{"kv": 1, "sink": 64, "recent": 256}])");
  const auto parsed = ParseHeadsFile(file, SmallConfig());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const int layer = file["layers"][0]["i"].get<int>();
  EXPECT_EQ(parsed->streaming.at(layer).at(1).retention,
            (Retention{.window = 256, .sink = 64}));
  EXPECT_EQ(parsed->streaming.at(layer).at(1).dtype, std::nullopt);
}

TEST(HeadsFile, ComesWithTheProjectAndHalvesTheCache) {
  const std::string directory = HEADCOUNT_SOURCE_DIR "/models/mailroom";
  const auto config = ReadModelConfig(directory);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto file = ReadHeadsFile(directory + "/heads_half.json", *config);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->base_sha256,
            "c4ed34e49afcb26a5e9ec5a6c0a4674146e354465fbe60b8b2e6a3e73f4040ee");
  const auto layout = HeadLayout::Create({.layers = config->heads,
                                          .head_dim = config->head_dim,
                                          .mask = file->mask,
                                          .kv_dtype = KvDtype::kF16});
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->kv_heads(), 12);
  EXPECT_EQ(layout->dense_kv_heads(), 24);
  EXPECT_FALSE(layout->layers()[2].has_attention());
}

TEST(HeadsFile, RefusesWhatItCannotMeanAndNamesTheKey) {
  const struct {
    const char* where;  // JSON pointer of what is changed
    const char* value;  // null: taken out
    const char* named;
    const char* said;
  } kCases[] = {
      {"/format", "\"heads/2\"", "format: \"heads/2\"", "known: heads/1"},
      {"/format", "null", "format: ", "missing"},
      {"/layer", "1", "layer: ", "unknown key"},
      {"/base/heads", "1", "base.heads: ", "unknown key"},
      {"/layers/1/drop", "1", "layers[1].drop: ", "unknown key"},
      {"/weights", "\"sliced\"", "weights: \"sliced\"", "not supported"},
      {"/repair", "3", "repair: ", "an object, not 3"},
      {"/repair", R"({"kind": "ridge_wo"})", "repair.tensors: ", "missing"},
      {"/repair", R"({"kind": "lasso", "tensors": "r.safetensors"})",
       "repair.kind: \"lasso\"", "known: ridge_wo"},
      {"/repair", R"({"kind": "ridge_wo", "tensors": "../r.safetensors"})",
       "repair.tensors: \"../r.safetensors\"", "in the folder of the mask"},
      {"/repair", R"({"kind": "ridge_wo", "tensors": "r.bin"})",
       "repair.tensors: \"r.bin\"", ".safetensors"},
      {"/repair", R"({"kind": "ridge_wo", "lambda": 1})",
       "repair.lambda: ", "unknown key"},
      {"/layers/0/stream", "3", "layers[0].stream: ", "a list"},
      {"/layers/0/stream", R"([{"kv": 1}])",
       "layers[0].stream[0].recent: ", "missing"},
      {"/layers/0/stream", R"([{"kv": 2, "recent": 8}])",
       "layers[0].stream[0].kv: 2", "0 to 1"},
      {"/layers/0/stream", R"([{"kv": 1, "recent": 8, "sink": 9}])",
       "layers[0].stream[0].sink: 9", "a multiple of 16"},
      {"/layers/0/stream",
       R"([{"kv": 1, "recent": 8}, {"kv": 1, "recent": 9}])",
       "layers[0].stream[1].kv: ", "KV head 1 twice"},
      {"/layers/1/stream", R"([{"kv": 1, "recent": 8}])",
       "layers[1].stream: ", "which drop_q empties"},
      {"/layers/0/kv_dtype", R"(["int8"])",
       "layers[0].kv_dtype: ", "does not serve"},
      {"/layers/0/k_scale", "[1.0]", "layers[0].k_scale: ", "does not serve"},
      {"/layers/0/v_scale", "[1.0]", "layers[0].v_scale: ", "does not serve"},
      {"/base", "null", "base: ", "missing"},
      {"/layers", "null", "layers: ", "missing"},
      {"/layers", "{}", "layers: ", "a list"},
      {"/layers/0", "3", "layers[0]: ", "an object, not 3"},
      {"/base/arch", "\"gpt2\"", "base.arch: made for \"gpt2\"",
       "the model is \"llama\""},
      {"/base/layers", "30", "base.layers: made for 30", "the model has 3"},
      {"/base/q_heads", "9", "base.q_heads: made for 9", "the model has 6"},
      {"/base/kv_heads", "3", "base.kv_heads: made for 3", "the model has 2"},
      {"/base/head_dim", "64", "base.head_dim: made for 64",
       "the model has 16"},
      {"/base/head_dim", "null", "base.head_dim: ", "missing"},
      {"/base/sha256", "\"abc\"", "base.sha256: \"abc\"",
       "64 lower-case hex digits"},
      {"/layers/0/i", "null", "layers[0].i: ", "missing"},
      {"/layers/0/i", "3", "layers[0].i: 3", "0 to 2"},
      {"/layers/1/i", "0", "layers[1].i: layer 0", "twice"},
      {"/layers/0/drop_q", "[1, 6]", "layers[0].drop_q[1]: 6", "0 to 5"},
      {"/layers/0/drop_q", "[1, 1]", "layers[0].drop_q: ", "head 1 twice"},
      {"/layers/0/drop_q", "[1.5]", "layers[0].drop_q[0]: ", "a whole number"},
      {"/layers/0/drop_kv", "[0]", "layers[0].drop_kv: [0]", "empties are []"},
      {"/layers/1/drop_kv", "null", "layers[1].drop_kv: []", "empties are [1]"},
      {"/layers/1/drop_kv", "[0]", "layers[1].drop_kv: [0]", "empties are [1]"},
      {"/layers/0/drop_attention", "true",
       "layers[0].drop_q: ", "drop_attention"},
      {"/evidence", "1", "evidence: ", "an object"},
  };
  for (const auto& expected : kCases) {
    json file = SmallFile();
    file[json::json_pointer(expected.where)] = json::parse(expected.value);
    const absl::Status status = ParseHeadsFile(file, SmallConfig()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << file;
    const std::string message(status.message());
    EXPECT_THAT(message, StartsWith(expected.named)) << file;
    EXPECT_THAT(message, HasSubstr(expected.said)) << file;
  }
  EXPECT_FALSE(ParseHeadsFile(json(), SmallConfig()).ok());
  EXPECT_FALSE(ParseHeadsFile(json::array(), SmallConfig()).ok());
}

TEST(HeadsFile, RefusesAHundredMegabytesWithoutReadingThem) {
  const TemporaryDirectory folder;
  folder.Write("heads.json", "{");
  const std::string path = folder.path() + "/heads.json";
  std::filesystem::resize_file(path, 100 << 20);
  const absl::Status status = ReadHeadsFile(path, SmallConfig()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("heads.json: 104857600 bytes, over the limit"));
}

TEST(HeadsFile, TakesHashesInLowerCaseOnly) {
  json file = SmallFile();
  file["base"]["sha256"] = std::string(64, 'A');
  EXPECT_THAT(
      std::string(ParseHeadsFile(file, SmallConfig()).status().message()),
      HasSubstr("64 lower-case hex digits"));
}

TEST(HeadsFile, NamesTheFileInItsErrors) {
  ModelConfig config = SmallConfig();
  const std::string path =
      HEADCOUNT_SOURCE_DIR "/models/mailroom/heads_half.json";
  EXPECT_THAT(std::string(ReadHeadsFile(path, config).status().message()),
              HasSubstr("heads_half.json: base.layers: made for 6, but the "
                        "model has 3"));
  EXPECT_EQ(ReadHeadsFile("/no/heads.json", config).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace headcount
