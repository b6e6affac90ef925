#include "model/layer_shapes.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

using ::nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

LayerShape Windowed(int query_heads, int kv_heads, int window) {
  return {query_heads, kv_heads, {.window = window}};
}

// A model of four layers with the keys of `patch` set; null takes one out.
json Patched(const char* patch) {
  json config = json::parse(R"({
    "model_type": "llama", "hidden_size": 96, "intermediate_size": 112,
    "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320,
    "max_position_embeddings": 512})");
  config.merge_patch(json::parse(patch));
  return config;
}

ModelConfig ParseOrDie(const json& config) {
  absl::StatusOr<ModelConfig> found = ParseModelConfig(config, json());
  EXPECT_TRUE(found.ok()) << found.status() << " " << config;
  return found.ok() ? *std::move(found) : ModelConfig();
}

struct GoodHeads {
  const char* patch;
  std::vector<LayerShape> heads;
};

TEST(LayerShapes, ReadsHeadsOfEveryLayer) {
  const GoodHeads kCases[] = {
      {R"({})", {{6, 2}, {6, 2}, {6, 2}, {6, 2}}},
      {R"({"num_attention_heads": [6, 4, 2, 8]})",
       {{6, 2}, {4, 2}, {2, 2}, {8, 2}}},
      {R"({"num_key_value_heads": [6, 3, 2, 1]})",
       {{6, 6}, {6, 3}, {6, 2}, {6, 1}}},
      {R"({"num_attention_heads": [6, 4, 9, 8],
           "num_key_value_heads": [2, 4, 3, 1]})",
       {{6, 2}, {4, 4}, {9, 3}, {8, 1}}},
      {R"({"num_attention_heads": [6, 4, 9, 8],
           "num_key_value_heads": null})",
       {{6, 6}, {4, 4}, {9, 9}, {8, 8}}},
      // Zero heads: a layer without attention, from whichever list says so.
      {R"({"num_attention_heads": [6, 0, 6, 6],
           "num_key_value_heads": [2, 0, 2, 2]})",
       {{6, 2}, {0, 0}, {6, 2}, {6, 2}}},
      {R"({"num_attention_heads": [6, 0, 6, 6]})",
       {{6, 2}, {0, 0}, {6, 2}, {6, 2}}},
      {R"({"num_key_value_heads": [0, 0, 2, 0]})",
       {{0, 0}, {0, 0}, {6, 2}, {0, 0}}},
      // DeciLM's name.
      {R"({"model_type": "deci", "num_key_value_heads": 6,
           "num_key_value_heads_per_layer": [3, 3, 2, 1]})",
       {{6, 3}, {6, 3}, {6, 2}, {6, 1}}},
      // Other pruners' names, which win over the number beside them.
      {R"({"num_attention_heads_per_layer": [6, 0, 3, 8],
           "num_key_value_heads_per_layer": [2, 0, 3, 1]})",
       {{6, 2}, {0, 0}, {3, 3}, {8, 1}}},
      {R"({"num_attention_heads_per_layer": [6, 0, 2, 8]})",
       {{6, 2}, {0, 0}, {2, 2}, {8, 2}}},
  };
  for (const GoodHeads& expected : kCases) {
    EXPECT_EQ(ParseOrDie(Patched(expected.patch)).heads, expected.heads)
        << expected.patch;
  }
}

TEST(LayerShapes, ReadsWidthsOfEveryLayer) {
  EXPECT_THAT(
      ParseOrDie(Patched(R"({"intermediate_size": [64, 0, 112, 16]})")).ffn,
      ElementsAre(64, 0, 112, 16));
  EXPECT_THAT(
      ParseOrDie(
          Patched(R"({"intermediate_size_per_layer": [64, 0, 112, 16]})"))
          .ffn,
      ElementsAre(64, 0, 112, 16));
}

TEST(LayerShapes, ReadsBlockConfigs) {
  const ModelConfig config = ParseOrDie(Patched(R"({
      "model_type": "nemotron-nas", "architectures": ["DeciLMForCausalLM"],
      "hidden_size": 1536, "num_attention_heads": 12, "head_dim": null,
      "num_key_value_heads": null, "intermediate_size": null,
      "block_configs": [
        {"attention": {"n_heads_in_group": 4, "no_op": false,
                       "replace_with_linear": false, "window_length": null},
         "ffn": {"ffn_mult": 2.625, "no_op": false}},
        {"attention": {"n_heads_in_group": null, "no_op": true},
         "ffn": {"ffn_mult": 0.5}},
        {"attention": {"n_heads_in_group": 12},
         "ffn": {"ffn_mult": null, "no_op": true}},
        {"attention": {"num_key_value_heads": 6},
         "ffn": {"intermediate_size": 1000}}]})"));
  EXPECT_THAT(config.heads, ElementsAre(LayerShape{12, 3}, LayerShape{},
                                        LayerShape{12, 1}, LayerShape{12, 6}));
  // 2 * 2.625 * 1536 / 3 = 2688, up to 2816; 2 * 0.5 * 1536 / 3 = 512.
  EXPECT_THAT(config.ffn, ElementsAre(2816, 512, 0, 1000));
  EXPECT_EQ(config.head_dim, 128);
}

// The published shape of Llama-3_1-Nemotron-51B: 2 * 5.25 * 8192 / 3 = 28672.
TEST(LayerShapes, ComputesTheWidthsOfNemotron) {
  const ModelConfig config = ParseOrDie(Patched(R"({
      "model_type": "nemotron-nas", "hidden_size": 8192,
      "num_attention_heads": 64, "head_dim": null, "num_hidden_layers": 2,
      "block_configs": [
        {"attention": {"n_heads_in_group": 8}, "ffn": {"ffn_mult": 5.25}},
        {"attention": {"n_heads_in_group": 16},
         "ffn": {"ffn_mult": 2.625}}]})"));
  EXPECT_THAT(config.heads, ElementsAre(LayerShape{64, 8}, LayerShape{64, 4}));
  EXPECT_THAT(config.ffn, ElementsAre(28672, 14336));
}

TEST(LayerShapes, GivesMistralItsWindow) {
  const GoodHeads kCases[] = {
      {R"({"sliding_window": 100})",
       std::vector<LayerShape>(4, Windowed(6, 2, 100))},
      {R"({"sliding_window": null})", std::vector<LayerShape>(4, {6, 2})},
      // The whole context: no window.
      {R"({"sliding_window": 512})", std::vector<LayerShape>(4, {6, 2})},
      {R"({"sliding_window": 511})",
       std::vector<LayerShape>(4, Windowed(6, 2, 511))},
      // The default of transformers.
      {R"({"max_position_embeddings": 32768})",
       std::vector<LayerShape>(4, Windowed(6, 2, 4096))},
      {R"({"sliding_window": 64, "layer_types":
           ["sliding_attention", "full_attention", "sliding_attention",
            "full_attention"]})",
       {Windowed(6, 2, 64), {6, 2}, Windowed(6, 2, 64), {6, 2}}},
  };
  for (const GoodHeads& expected : kCases) {
    json config = Patched(expected.patch);
    config["model_type"] = "mistral";
    // merge_patch takes nulls for absence.
    if (std::string(expected.patch).find("null") != std::string::npos) {
      config["sliding_window"] = nullptr;
    }
    EXPECT_EQ(ParseOrDie(config).heads, expected.heads) << expected.patch;
  }
}

TEST(LayerShapes, GivesQwenAWindowOnlyWhereItIsSwitchedOn) {
  const std::vector<LayerShape> full(4, {6, 2});
  const GoodHeads kCases[] = {
      {R"({"sliding_window": 100})", full},
      {R"({"sliding_window": 100, "max_window_layers": 0})", full},
      {R"({"sliding_window": 100, "use_sliding_window": true})", full},
      {R"({"sliding_window": 100, "use_sliding_window": true,
           "max_window_layers": 3})",
       {{6, 2}, {6, 2}, {6, 2}, Windowed(6, 2, 100)}},
      {R"({"sliding_window": 100, "use_sliding_window": true,
           "layer_types": ["full_attention", "sliding_attention",
                           "full_attention", "full_attention"]})",
       {{6, 2}, Windowed(6, 2, 100), {6, 2}, {6, 2}}},
  };
  for (const GoodHeads& expected : kCases) {
    for (const char* type : {"qwen2", "qwen3"}) {
      json config = Patched(expected.patch);
      config["model_type"] = type;
      EXPECT_EQ(ParseOrDie(config).heads, expected.heads) << expected.patch;
    }
  }
}

struct BadShapes {
  const char* patch;
  const char* named;  // how the error starts
  const char* said;   // and what else it says
};

TEST(LayerShapes, RefusesListsThatDoNotFit) {
  const BadShapes kCases[] = {
      {R"({"num_attention_heads": [6, 6, 6]})",
       "num_attention_heads: ", "lists 3 layers, but the model has 4"},
      {R"({"num_attention_heads": []})",
       "num_attention_heads: ", "lists 0 layers"},
      {R"({"num_key_value_heads": [2, 2, 2, 2, 2]})",
       "num_key_value_heads: ", "lists 5 layers, but the model has 4"},
      {R"({"model_type": "deci", "num_key_value_heads_per_layer": [1]})",
       "num_key_value_heads_per_layer: ", "lists 1 layers"},
      {R"({"num_key_value_heads": [2, 4, 2, 2]})", "num_key_value_heads[1]: 4",
       "does not divide num_attention_heads 6"},
      {R"({"num_attention_heads": [6, 6, 5, 6]})", "num_key_value_heads: 2",
       "does not divide num_attention_heads[2] 5"},
      {R"({"num_attention_heads": [6, 6, 6, 0],
           "num_key_value_heads": [2, 2, 2, 2]})",
       "num_key_value_heads[3]: 2", "num_attention_heads[3] 0"},
      {R"({"num_attention_heads": [6, 6, 6, 6],
           "num_key_value_heads": [2, 0, 2, 2]})",
       "num_key_value_heads[1]: 0", "num_attention_heads[1] 6"},
      {R"({"num_attention_heads": [6, -6, 6, 6]})",
       "num_attention_heads[1]: -6", "out of range"},
      {R"({"num_attention_heads": [6, 6.5, 6, 6]})",
       "num_attention_heads[1]: ", "a whole number"},
      {R"({"num_attention_heads": [6, 6, 6, 6], "head_dim": null})",
       "head_dim: missing", "list of num_attention_heads"},
      {R"({"num_attention_heads_per_layer": [6, 6, 6, 6], "head_dim": null})",
       "head_dim: missing", "list of num_attention_heads_per_layer"},
      {R"({"intermediate_size": [1, 2]})",
       "intermediate_size: ", "lists 2 layers"},
      {R"({"model_type": "mistral", "sliding_window": 0})", "sliding_window: 0",
       "out of range"},
      {R"({"model_type": "mistral", "sliding_window": "all"})",
       "sliding_window: ", "a whole number"},
      {R"({"model_type": "mistral", "layer_types": ["full_attention"]})",
       "layer_types: ", "a list of 4 names"},
      {R"({"model_type": "mistral", "layer_types":
           ["full_attention", "full_attention", "chunked_attention", 3]})",
       "layer_types[2]: \"chunked_attention\"", "sliding_attention"},
      {R"({"model_type": "qwen3", "layer_types":
           ["full_attention", "sliding_attention", "full_attention",
            "full_attention"]})",
       "layer_types[1]: ", "needs a sliding_window"},
  };
  for (const BadShapes& bad : kCases) {
    const absl::Status status =
        ParseModelConfig(Patched(bad.patch), json()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.patch;
    EXPECT_THAT(std::string(status.message()), StartsWith(bad.named));
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.said));
  }
}

TEST(LayerShapes, RefusesBlocksThatItDoesNotServe) {
  const std::string good =
      R"({"attention": {"n_heads_in_group": 3}, "ffn": {"ffn_mult": 1}})";
  const BadShapes kCases[] = {
      {R"(3)", "block_configs[1]: ", "an object"},
      {R"({"attention": [], "ffn": {"ffn_mult": 1}})",
       "block_configs[1].attention: ", "an object"},
      {R"({"ffn": {"ffn_mult": 1}})",
       "block_configs[1].attention.n_heads_in_group: ", "missing"},
      {R"({"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 1}})",
       "block_configs[1].attention.n_heads_in_group: 4", "does not divide"},
      {R"({"attention": {"num_key_value_heads": 4}, "ffn": {"ffn_mult": 1}})",
       "block_configs[1].attention.num_key_value_heads: 4", "does not divide"},
      {R"({"attention": {"replace_with_linear": true}})",
       "block_configs[1].attention.replace_with_linear: ", "not supported"},
      {R"({"attention": {"n_heads_in_group": 3, "window_length": 8192}})",
       "block_configs[1].attention.window_length: ", "not supported"},
      {R"({"attention": {"no_op": true}, "ffn": {"replace_with_linear": true}})",
       "block_configs[1].ffn.replace_with_linear: ", "not supported"},
      {R"({"attention": {"no_op": true}})",
       "block_configs[1].ffn.ffn_mult: ", "missing"},
      {R"({"attention": {"no_op": true}, "ffn": {"ffn_mult": 0}})",
       "block_configs[1].ffn.ffn_mult: 0", "out of range"},
      {R"({"attention": {"no_op": true}, "ffn": {"ffn_mult": 1024}})",
       "block_configs[1].ffn.ffn_mult: ", ""},
  };
  for (const BadShapes& bad : kCases) {
    json config = Patched(R"({"model_type": "nemotron-nas"})");
    config["hidden_size"] = 8192;
    config["block_configs"] =
        json::array({json::parse(good), json::parse(bad.patch),
                     json::parse(good), json::parse(good)});
    const absl::Status status = ParseModelConfig(config, json()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.patch;
    EXPECT_THAT(std::string(status.message()), StartsWith(bad.named));
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.said));
  }
  json config = Patched(R"({"model_type": "nemotron-nas"})");
  for (const json& blocks : {json(3), json::array({json::parse(good)})}) {
    config["block_configs"] = blocks;
    EXPECT_THAT(
        std::string(ParseModelConfig(config, json()).status().message()),
        StartsWith("block_configs: must be a list of 4 blocks"));
  }
}

// The published lists of OpenELM-270M.
TEST(ParseHeads, ReadsTheHeadsOfModelsThatAreNotServed) {
  const json config = json::parse(R"({
      "model_type": "openelm", "head_dim": 64, "num_transformer_layers": 16,
      "num_query_heads": [12, 12, 12, 12, 12, 16, 16, 16, 16, 16, 16, 16, 20,
                          20, 20, 20],
      "num_kv_heads": [3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5]})");
  const absl::StatusOr<HeadLayoutSpec> spec = ParseHeads(config);
  ASSERT_TRUE(spec.ok()) << spec.status();
  const absl::StatusOr<HeadLayout> layout = HeadLayout::Create(*spec);
  ASSERT_TRUE(layout.ok()) << layout.status();
  EXPECT_EQ(layout->layers().size(), 16u);
  EXPECT_EQ(layout->head_dim(), 64);
  EXPECT_EQ(layout->query_heads(), 5 * 12 + 7 * 16 + 4 * 20);
  EXPECT_EQ(layout->kv_heads(), 5 * 3 + 7 * 4 + 4 * 5);
  EXPECT_EQ(layout->num_layer_classes(), 3);

  json bad = config;
  bad["num_kv_heads"] = {3};
  EXPECT_THAT(std::string(ParseHeads(bad).status().message()),
              StartsWith("num_kv_heads: lists 1 layers"));
}

TEST(ParseHeads, ReadsTheHeadsOfModelsThatAre) {
  const absl::StatusOr<HeadLayoutSpec> spec =
      ParseHeads(Patched(R"({"num_key_value_heads": [6, 3, 2, 1]})"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_THAT(spec->layers, ElementsAre(LayerShape{6, 6}, LayerShape{6, 3},
                                        LayerShape{6, 2}, LayerShape{6, 1}));
  EXPECT_EQ(spec->head_dim, 16);
}

}  // namespace
}  // namespace headcount
