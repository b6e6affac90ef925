#include "model/model_config.h"

#include <limits>
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
using ::testing::IsEmpty;
using ::testing::StartsWith;

json SmallConfig() {
  return json::parse(R"({
    "model_type": "llama", "architectures": ["LlamaForCausalLM"],
    "hidden_size": 96, "intermediate_size": 112, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 320, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "hidden_act": "silu"})");
}

// SmallConfig with the keys of `patch` set; null takes one out.
json Patched(const char* patch) {
  json config = SmallConfig();
  config.merge_patch(json::parse(patch));
  return config;
}

absl::StatusOr<ModelConfig> Parse(const json& config) {
  return ParseModelConfig(config, json());
}

TEST(ModelConfig, ReadsEveryKey) {
  json config = SmallConfig();
  config["attention_bias"] = true;
  config["mlp_bias"] = true;
  config["tie_word_embeddings"] = true;
  config["bos_token_id"] = 1;
  config["eos_token_id"] = 2;
  const absl::StatusOr<ModelConfig> found = Parse(config);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->architecture, "llama");
  EXPECT_EQ(found->layers, 3);
  EXPECT_EQ(found->hidden, 96);
  EXPECT_THAT(found->ffn, ElementsAre(112, 112, 112));
  EXPECT_EQ(found->vocab, 320);
  EXPECT_EQ(found->head_dim, 16);
  EXPECT_EQ(found->max_context, 512);
  EXPECT_THAT(found->heads, ElementsAre(LayerShape{6, 2}, LayerShape{6, 2},
                                        LayerShape{6, 2}));
  EXPECT_EQ(found->rms_epsilon, 1e-5);
  EXPECT_TRUE(found->qkv_bias);
  EXPECT_TRUE(found->attention_out_bias);
  EXPECT_FALSE(found->qk_norm);
  EXPECT_TRUE(found->mlp_bias);
  EXPECT_TRUE(found->tied_output);
  EXPECT_EQ(found->bos_id, 1);
  EXPECT_THAT(found->eos_ids, ElementsAre(2));
  EXPECT_EQ(found->rope.type, RopeType::kDefault);
  EXPECT_EQ(found->rope.theta, 10000.0);
}

TEST(ModelConfig, HasTheDefaultsOfTransformers) {
  json config = SmallConfig();
  for (const char* key :
       {"architectures", "head_dim", "rms_norm_eps", "hidden_act"}) {
    config.erase(key);
  }
  config["num_key_value_heads"] = nullptr;
  config["rope_scaling"] = nullptr;
  const absl::StatusOr<ModelConfig> found = Parse(config);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->head_dim, 96 / 6);
  EXPECT_EQ(found->heads[0], (LayerShape{6, 6}));
  EXPECT_EQ(found->rms_epsilon, 1e-6);
  EXPECT_FALSE(found->qkv_bias);
  EXPECT_FALSE(found->attention_out_bias);
  EXPECT_FALSE(found->tied_output);
  EXPECT_EQ(found->bos_id, -1);
  EXPECT_THAT(found->eos_ids, IsEmpty());
}

TEST(ModelConfig, KnowsWhereArchitecturesDifferFromLlama) {
  const struct {
    const char* patch;
    const char* architecture;
    bool qkv_bias;
    bool out_bias;
    bool qk_norm;
  } kCases[] = {
      {R"({"model_type": "mistral",
           "architectures": ["MistralForCausalLM"]})",
       "mistral", false, false, false},
      {R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})",
       "qwen2", true, false, false},
      {R"({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]})",
       "qwen3", false, false, true},
      {R"({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"],
           "attention_bias": true})",
       "qwen3", true, true, true},
      {R"({"model_type": "nemotron-nas",
           "architectures": ["DeciLMForCausalLM"]})",
       "deci", false, false, false},
      {R"({"model_type": "deci", "architectures": ["DeciLMForCausalLM"],
           "attention_bias": true})",
       "deci", true, true, false},
  };
  for (const auto& expected : kCases) {
    const auto found = Parse(Patched(expected.patch));
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->architecture, expected.architecture);
    EXPECT_EQ(found->qkv_bias, expected.qkv_bias) << expected.patch;
    EXPECT_EQ(found->attention_out_bias, expected.out_bias) << expected.patch;
    EXPECT_EQ(found->qk_norm, expected.qk_norm) << expected.patch;
  }
}

TEST(ModelConfig, TakesEosIdsFromGenerationConfigFirst) {
  const json config = Patched(R"({"eos_token_id": 2})");
  const struct {
    const char* generation;
    std::vector<int32_t> eos;
  } kCases[] = {
      {"null", {2}},
      {"{}", {2}},
      {R"({"eos_token_id": null})", {2}},
      {R"({"eos_token_id": 7})", {7}},
      {R"({"eos_token_id": [7, 9, 319]})", {7, 9, 319}},
      {R"({"eos_token_id": []})", {}},
  };
  for (const auto& expected : kCases) {
    const auto found =
        ParseModelConfig(config, json::parse(expected.generation));
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->eos_ids, expected.eos) << expected.generation;
  }
  EXPECT_THAT(Parse(Patched(R"({"eos_token_id": [3, 4]})"))->eos_ids,
              ElementsAre(3, 4));
  for (const char* bad : {"320", "-1", "\"</s>\"", "1.5", "[1, 320]"}) {
    json generation;
    generation["eos_token_id"] = json::parse(bad);
    const absl::Status status = ParseModelConfig(config, generation).status();
    EXPECT_THAT(std::string(status.message()),
                StartsWith("generation_config.eos_token_id"))
        << bad;
  }
}

TEST(ModelConfig, ReadsBothSpellingsOfRotaryEmbedding) {
  for (const char* rope : {R"({"rope_theta": 500000.0, "rope_scaling": {
             "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0, "original_max_position_embeddings": 32}})",
                           R"({"rope_parameters": {"rope_theta": 500000,
             "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0,
             "original_max_position_embeddings": 32}})"}) {
    const absl::StatusOr<ModelConfig> found = Parse(Patched(rope));
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(found->rope.type, RopeType::kLlama3);
    EXPECT_EQ(found->rope.theta, 500000.0);
    EXPECT_EQ(found->rope.factor, 8.0);
    EXPECT_EQ(found->rope.low_freq_factor, 1.0);
    EXPECT_EQ(found->rope.high_freq_factor, 4.0);
    EXPECT_EQ(found->rope.original_max_positions, 32);
  }
  const auto oldest =
      Parse(Patched(R"({"rope_scaling": {"type": "linear", "factor": 4}})"));
  ASSERT_TRUE(oldest.ok()) << oldest.status();
  EXPECT_EQ(oldest->rope.type, RopeType::kLinear);
  EXPECT_EQ(oldest->rope.factor, 4.0);
}

TEST(ModelConfig, FillsInYarnAsTransformersDoes) {
  RopeConfig rope =
      Parse(Patched(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4}})"))
          ->rope;
  EXPECT_EQ(rope.type, RopeType::kYarn);
  EXPECT_EQ(rope.original_max_positions, 512);
  EXPECT_EQ(rope.beta_fast, 32.0);
  EXPECT_EQ(rope.beta_slow, 1.0);
  EXPECT_EQ(rope.attention_factor, 0.0);
  EXPECT_TRUE(rope.truncate);

  rope = Parse(Patched(R"({"rope_scaling": {
             "rope_type": "yarn", "original_max_position_embeddings": 128,
             "beta_fast": 16, "mscale": 0.707, "mscale_all_dim": 1,
             "truncate": false}})"))
             ->rope;
  EXPECT_EQ(rope.factor, 4.0);  // 512 / 128
  EXPECT_EQ(rope.beta_fast, 16.0);
  EXPECT_EQ(rope.mscale, 0.707);
  EXPECT_EQ(rope.mscale_all_dim, 1.0);
  EXPECT_FALSE(rope.truncate);
}

TEST(ModelConfig, ReadsTheOldKeyOfPrunedHeads) {
  const auto found =
      Parse(Patched(R"({"pruned_heads": {"0": [2, 4], "2": [5]}})"));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(found->pruned_heads.pruned.at(0), ElementsAre(2, 4));
  EXPECT_THAT(found->pruned_heads.pruned.at(2), ElementsAre(5));
}

struct Bomb {
  const char* patch;
  const char* named;  // how the error starts
  const char* said;   // and what else it says
};

void ExpectRefused(const json& config, const char* named, const char* said) {
  const absl::Status status = Parse(config).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << config;
  const std::string message(status.message());
  EXPECT_THAT(message, StartsWith(named)) << config;
  EXPECT_THAT(message, HasSubstr(said)) << config;
  EXPECT_LT(message.size(), 300u) << config;
}

TEST(ModelConfig, RefusesShapesThatNoModelHas) {
  const Bomb kBombs[] = {
      {R"({"num_attention_heads": 0})", "num_attention_heads: 0", "1 to 1024"},
      {R"({"num_attention_heads": 2147483648})",
       "num_attention_heads: 2147483648", "out of range"},
      {R"({"num_attention_heads": 18446744073709551615})",
       "num_attention_heads: 18446744073709551615", "out of range"},
      {R"({"num_attention_heads": -6})", "num_attention_heads: -6",
       "out of range"},
      {R"({"num_attention_heads": 6.5})",
       "num_attention_heads: ", "a whole number, not 6.5"},
      {R"({"num_attention_heads": {"0": 6}})",
       "num_attention_heads: ", "a whole number, not an object"},
      {R"({"num_attention_heads": "6"})",
       "num_attention_heads: ", "a whole number, not \"6\""},
      {R"({"num_attention_heads": true})", "num_attention_heads: ", "not true"},
      {R"({"num_attention_heads": 10, "head_dim": null})",
       "num_attention_heads: 10", "does not divide hidden_size 96"},
      {R"({"num_key_value_heads": 4})", "num_key_value_heads: 4",
       "does not divide num_attention_heads 6"},
      {R"({"num_key_value_heads": 12})", "num_key_value_heads: 12",
       "does not divide"},
      {R"({"num_key_value_heads": 0})", "num_key_value_heads: 0",
       "out of range"},
      {R"({"head_dim": 0})", "head_dim: 0", "2 to 1024"},
      {R"({"head_dim": 15})", "head_dim: 15", "even"},
      {R"({"head_dim": 1048576})", "head_dim: 1048576", "out of range"},
      {R"({"hidden_size": 18, "head_dim": null})", "head_dim: 3", "even"},
      {R"({"num_hidden_layers": 1000000000})", "num_hidden_layers: 1000000000",
       "1 to 1024"},
      {R"({"num_hidden_layers": 0})", "num_hidden_layers: 0", ""},
      {R"({"hidden_size": 0})", "hidden_size: 0", ""},
      {R"({"hidden_size": 1099511627776})", "hidden_size: ", "out of range"},
      {R"({"intermediate_size": -1})", "intermediate_size: -1", ""},
      {R"({"vocab_size": 0})", "vocab_size: 0", ""},
      {R"({"max_position_embeddings": 0})", "max_position_embeddings: 0", ""},
      {R"({"bos_token_id": 320})", "bos_token_id: 320", "0 to 319"},
      {R"({"eos_token_id": 320})", "eos_token_id: 320", "0 to 319"},
      {R"({"eos_token_id": [1, 999]})", "eos_token_id[1]: 999", "0 to 319"},
      {R"({"pruned_heads": {"3": [0]}})", "pruned_heads.3: ", "3 layers (0-2)"},
      {R"({"pruned_heads": {"all": [0]}})",
       "pruned_heads.all: ", "is not a layer"},
      {R"({"pruned_heads": {"1": [0, 6]}})", "pruned_heads.1[1]: 6", "0 to 5"},
      {R"({"pruned_heads": [1]})", "pruned_heads: ", "an object"},
  };
  for (const Bomb& bomb : kBombs) {
    ExpectRefused(Patched(bomb.patch), bomb.named, bomb.said);
  }
}

TEST(ModelConfig, RefusesWhatIsNotServed) {
  const Bomb kBombs[] = {
      {R"({"model_type": "gemma2"})", "model_type: \"gemma2\" is not served",
       "served: llama, mistral, qwen2, qwen3, deci, nemotron-nas"},
      {R"({"model_type": "openelm"})", "model_type: \"openelm\" is not served",
       "fused qkv_proj"},
      {R"({"model_type": "qwen2"})", "architectures: ", "Qwen2ForCausalLM"},
      {R"({"model_type": "mistral", "architectures": null,
           "attention_bias": true})",
       "attention_bias: ", "mistral does not have the choice"},
      {R"({"model_type": "qwen3", "architectures": null, "mlp_bias": true})",
       "mlp_bias: ", "qwen3 does not have the choice"},
      {R"({"architectures": ["LlamaForSequenceClassification"]})",
       "architectures: ", "LlamaForCausalLM"},
      {R"({"hidden_act": "gelu"})", "hidden_act: \"gelu\"", "supported: silu"},
      {R"({"quantization_config": {"bits": 4}})",
       "quantization_config: ", "not supported"},
      {R"({"tie_word_embeddings": "yes"})",
       "tie_word_embeddings: ", "true or false"},
      {R"({"attention_bias": 1})", "attention_bias: ", "true or false"},
      {R"({"rms_norm_eps": 0})", "rms_norm_eps: 0", ""},
  };
  for (const Bomb& bomb : kBombs) {
    ExpectRefused(Patched(bomb.patch), bomb.named, bomb.said);
  }
}

TEST(ModelConfig, NamesTheKeyThatIsMissing) {
  for (const char* key :
       {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "vocab_size", "max_position_embeddings"}) {
    for (bool erase : {true, false}) {
      json config = SmallConfig();
      if (erase) {
        config.erase(key);
      } else {
        config[key] = nullptr;
      }
      ExpectRefused(config, key, "missing");
    }
  }
}

TEST(ModelConfig, RefusesRotaryEmbeddingsThatDoNotExist) {
  const Bomb kBombs[] = {
      {R"({"rope_theta": 0})", "rope_theta: 0", "greater than 1"},
      {R"({"rope_theta": -10000.0})", "rope_theta: -10000", ""},
      {R"({"rope_theta": "1e4"})", "rope_theta: ", "a number"},
      {R"({"rope_parameters": {"rope_theta": 0.0}})",
       "rope_parameters.rope_theta: 0", ""},
      {R"({"rope_parameters": []})",
       "rope_parameters: ", "an object, not a list"},
      {R"({"rope_scaling": {"type": "dynamic", "factor": 2.0}})",
       "rope_scaling.type: \"dynamic\"", "supported: default, linear"},
      {R"({"rope_parameters": {"partial_rotary_factor": 0.5}})",
       "rope_parameters.partial_rotary_factor: ", "1.0"},
      {R"({"rope_parameters": {"rope_type": "linear"}})",
       "rope_parameters.factor: ", "missing"},
      {R"({"rope_parameters": {"rope_type": "linear", "factor": 0}})",
       "rope_parameters.factor: 0", ""},
      {R"({"rope_parameters": {"rope_type": "llama3", "factor": 8.0,
           "low_freq_factor": 1.0, "high_freq_factor": 4.0}})",
       "rope_parameters.original_max_position_embeddings: ", "missing"},
      {R"({"rope_parameters": {"rope_type": "llama3", "factor": 8.0,
           "low_freq_factor": 4.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 32}})",
       "rope_parameters.high_freq_factor: 4", "greater than"},
      {R"({"rope_parameters": {"rope_type": "yarn"}})",
       "rope_parameters.factor: ", "missing"},
      {R"({"rope_parameters": {"rope_type": "yarn", "factor": 4.0,
           "beta_fast": 1, "beta_slow": 2}})",
       "rope_parameters.beta_fast: 1", "beta_slow"},
  };
  for (const Bomb& bomb : kBombs) {
    ExpectRefused(Patched(bomb.patch), bomb.named, bomb.said);
  }
}

// No JSON text holds these, but other readers of files may hand them over.
TEST(ModelConfig, RefusesNumbersThatAreNotFinite) {
  for (double number : {std::numeric_limits<double>::quiet_NaN(),
                        std::numeric_limits<double>::infinity(),
                        -std::numeric_limits<double>::infinity()}) {
    for (const char* key : {"rope_theta", "rms_norm_eps"}) {
      json config = SmallConfig();
      config[key] = number;
      ExpectRefused(config, key, "not finite");
    }
  }
}

TEST(ModelConfig, RefusesAFileThatIsNoObject) {
  for (const char* text : {"null", "[]", "3", "\"llama\""}) {
    EXPECT_EQ(Parse(json::parse(text)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(ReadModelConfig, ReadsTheModelThatComesWithTheProject) {
  const absl::StatusOr<ModelConfig> config =
      ReadModelConfig(HEADCOUNT_SOURCE_DIR "/models/mailroom");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->layers, 6);
  EXPECT_EQ(config->heads[5], (LayerShape{12, 4}));
  EXPECT_EQ(config->head_dim, 32);  // not 192 / 12
  EXPECT_TRUE(config->tied_output);
  EXPECT_THAT(config->eos_ids, ElementsAre(1));
}

TEST(ReadModelConfig, NamesTheFileThatIsNotThere) {
  const absl::Status status = ReadModelConfig("/no/such/model").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("/no/such/model/config.json"));
}

}  // namespace
}  // namespace headcount
