#include "export/sliced_config.h"

#include <string>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

using ::nlohmann::json;

json Config(const char* patch) {
  json config = json::parse(R"({
    "model_type": "llama", "hidden_size": 96, "intermediate_size": 112,
    "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 320,
    "max_position_embeddings": 512, "torch_dtype": "float16"})");
  config.merge_patch(json::parse(patch));
  return config;
}

// The keys that can change, of `config` without the heads of `mask`.
json Sliced(const json& config, const HeadMask& mask) {
  const ModelConfig parsed = ParseModelConfig(config, json()).value();
  const HeadLayout layout =
      HeadLayout::Create(
          {.layers = parsed.heads, .head_dim = parsed.head_dim, .mask = mask})
          .value();
  json sliced = SlicedConfig(config, parsed, layout, false).value();
  EXPECT_EQ(sliced.at("torch_dtype"), "float16");
  EXPECT_EQ(sliced.at("vocab_size"), 320);
  // What it says are the heads that are left.
  const ModelConfig read = ParseModelConfig(sliced, json()).value();
  const HeadLayout again = HeadLayout::Create({.layers = read.heads,
                                               .head_dim = read.head_dim,
                                               .mask = read.pruned_heads})
                               .value();
  EXPECT_EQ(again.query_heads(), layout.query_heads());
  EXPECT_EQ(again.kv_heads(), layout.kv_heads());
  for (size_t i = 0; i < layout.layers().size(); ++i) {
    const LayerHeads& a = layout.layers()[i];
    const LayerHeads& b = again.layers()[i];
    EXPECT_EQ(b.kv_heads.size(), a.kv_heads.size()) << i;
    for (size_t kv = 0; kv < a.kv_heads.size(); ++kv) {
      EXPECT_EQ(b.kv_heads[kv].num_queries, a.kv_heads[kv].num_queries) << i;
    }
  }
  for (const char* key :
       {"model_type", "hidden_size", "num_hidden_layers", "vocab_size",
        "max_position_embeddings", "torch_dtype"}) {
    sliced.erase(key);
  }
  return sliced;
}

TEST(SlicedConfig, HasNumbersWhereLayersAreAlikeAndListsWhereTheyAreNot) {
  EXPECT_EQ(
      Sliced(Config("{}"), {{{0, {0, 1, 2}}, {1, {3, 4, 5}}, {2, {0, 1, 2}}}}),
      json::parse(R"({"num_attention_heads": 3, "num_key_value_heads": 1,
                            "intermediate_size": 112, "head_dim": 16})"));
  EXPECT_EQ(Sliced(Config("{}"), {{{1, {0, 1, 2, 3, 4, 5}}, {2, {2, 5}}}}),
            json::parse(R"({"num_attention_heads": [6, 0, 4],
                            "num_key_value_heads": [2, 0, 2],
                            "intermediate_size": 112, "head_dim": 16})"));
}

// One of the two would do, if a number beside a list did not say something of
// layers without heads.
TEST(SlicedConfig, HasTwoListsIfOneIsNeeded) {
  EXPECT_EQ(Sliced(Config("{}"), {{{1, {2, 5}}}}),
            json::parse(R"({"num_attention_heads": [6, 4, 6],
                            "num_key_value_heads": [2, 2, 2],
                            "intermediate_size": 112, "head_dim": 16})"));
  EXPECT_EQ(Sliced(Config("{}"), {{{0, {0, 1, 2, 3, 4, 5}},
                                   {1, {0, 1, 2, 3, 4, 5}},
                                   {2, {0, 1, 2, 3, 4, 5}}}})
                .at("num_attention_heads"),
            json::parse("[0, 0, 0]"));
}

TEST(SlicedConfig, NamesTheHeadsThatUnlikeGroupsLack) {
  EXPECT_EQ(Sliced(Config("{}"), {{{0, {1}}, {2, {0, 1, 4}}}}),
            json::parse(R"({"num_attention_heads": [6, 6, 4],
                            "num_key_value_heads": [2, 2, 2],
                            "pruned_heads": {"0": [2], "2": [1]},
                            "intermediate_size": 112, "head_dim": 16})"));
}

TEST(SlicedConfig, SaysItInOneWayWhateverTheSourceDid) {
  EXPECT_EQ(Sliced(Config(R"({"model_type": "deci",
                              "num_key_value_heads_per_layer": [2, 6, 3],
                              "num_attention_heads_per_layer": [6, 6, 6],
                              "intermediate_size_per_layer": [112, 0, 16],
                              "pruned_heads": {"0": [0, 1, 2]}})"),
                   {{{0, {0, 1, 2}}}}),
            json::parse(R"({"num_attention_heads": [3, 6, 6],
                            "num_key_value_heads": [1, 6, 3],
                            "intermediate_size": [112, 0, 16],
                            "head_dim": 16})"));
  EXPECT_EQ(Sliced(Config(R"({"model_type": "nemotron-nas",
                        "num_key_value_heads": null, "intermediate_size": null,
                        "block_configs": [
        {"attention": {"n_heads_in_group": 3}, "ffn": {"ffn_mult": 4.0}},
        {"attention": {"no_op": true}, "ffn": {"no_op": true}},
        {"attention": {"n_heads_in_group": 6}, "ffn": {"ffn_mult": 4.0}}]})"),
                   {}),
            json::parse(R"({"num_attention_heads": [6, 0, 6],
                      "num_key_value_heads": [2, 0, 1],
                      "intermediate_size": [256, 0, 256], "head_dim": 16})"));
}

}  // namespace
}  // namespace headcount
