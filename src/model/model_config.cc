#include "model/model_config.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "format/gguf.h"
#include "format/json.h"
#include "model/at_path.h"
#include "model/gguf_config.h"
#include "model/json_fields.h"
#include "model/layer_shapes.h"
#include "model/model_limits.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

std::optional<RopeType> RopeTypeOf(const std::string& name) {
  if (name == "default") return RopeType::kDefault;
  if (name == "linear") return RopeType::kLinear;
  if (name == "llama3") return RopeType::kLlama3;
  if (name == "yarn") return RopeType::kYarn;
  return std::nullopt;
}

void ParseLlama3(JsonFields& fields, RopeConfig* rope) {
  rope->factor = fields.Number("factor", kFactor);
  rope->low_freq_factor = fields.Number("low_freq_factor", kFactor);
  rope->high_freq_factor = fields.Number("high_freq_factor", kFactor);
  rope->original_max_positions =
      fields.Int("original_max_position_embeddings", kMaxContext);
  if (rope->high_freq_factor <= rope->low_freq_factor) {
    fields.Fail("high_freq_factor",
                absl::StrCat(rope->high_freq_factor,
                             " must be greater than low_freq_factor ",
                             rope->low_freq_factor));
  }
}

void ParseYarn(JsonFields& fields, int32_t max_context, RopeConfig* rope) {
  rope->original_max_positions =
      fields.Int("original_max_position_embeddings", kMaxContext, max_context);
  std::optional<double> extension;  // what the contexts imply
  if (fields.Has("original_max_position_embeddings")) {
    extension = static_cast<double>(max_context) /
                static_cast<double>(rope->original_max_positions);
  }
  rope->factor = fields.Number("factor", kFactor, extension);
  rope->beta_fast = fields.Number("beta_fast", kFactor, rope->beta_fast);
  rope->beta_slow = fields.Number("beta_slow", kFactor, rope->beta_slow);
  rope->attention_factor = fields.Number("attention_factor", kFactor, 0.0);
  rope->mscale = fields.Number("mscale", kFactor, 0.0);
  rope->mscale_all_dim = fields.Number("mscale_all_dim", kFactor, 0.0);
  rope->truncate = fields.Bool("truncate", true);
  if (rope->beta_fast < rope->beta_slow) {
    fields.Fail("beta_fast", absl::StrCat(rope->beta_fast,
                                          " must not be less than beta_slow ",
                                          rope->beta_slow));
  }
}

// `rope_parameters` holds everything; before it there were `rope_theta` at the
// top and `rope_scaling`, whose `rope_type` was first called `type`.
absl::Status ParseRope(JsonFields& top, int32_t max_context, RopeConfig* rope) {
  rope->theta = top.Number("rope_theta", kTheta, rope->theta);
  if (!top.status().ok()) return top.status();
  const char* key =
      top.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!top.Has(key)) return absl::OkStatus();

  JsonFields fields(*top.Find(key), key);
  rope->theta = fields.Number("rope_theta", kTheta, rope->theta);
  const char* type_key = fields.Has("rope_type") ? "rope_type" : "type";
  const std::string type_name = fields.String(type_key, "default");
  const std::optional<RopeType> type = RopeTypeOf(type_name);
  if (!type) {
    fields.Fail(type_key,
                absl::StrCat(Abridged(type_name),
                             " is not supported; supported: default, linear, "
                             "llama3, yarn"));
  }
  if (fields.Number("partial_rotary_factor", kFactor, 1.0) != 1.0) {
    fields.Fail("partial_rotary_factor",
                "only rotation of the whole head (1.0) is supported");
  }
  if (!fields.status().ok()) return fields.status();
  rope->type = *type;
  if (type == RopeType::kLinear) {
    rope->factor = fields.Number("factor", kFactor);
  }
  if (type == RopeType::kLlama3) ParseLlama3(fields, rope);
  if (type == RopeType::kYarn) ParseYarn(fields, max_context, rope);
  return fields.status();
}

// How the architectures that are served differ from Llama, and each other.
struct Architecture {
  const char* model_type;
  const char* causal_class;  // in `architectures`
  const char* name;          // of ModelConfig
  // Whether attention_bias may give biases to Q, K, V and O, and mlp_bias to
  // the MLP.
  bool attention_bias_key = false;
  bool mlp_bias_key = false;
  bool qkv_bias = false;  // always
  bool qk_norm = false;
};

constexpr Architecture kServed[] = {
    {.model_type = "llama",
     .causal_class = "LlamaForCausalLM",
     .name = "llama",
     .attention_bias_key = true,
     .mlp_bias_key = true},
    {.model_type = "mistral",
     .causal_class = "MistralForCausalLM",
     .name = "mistral"},
    {.model_type = "qwen2",
     .causal_class = "Qwen2ForCausalLM",
     .name = "qwen2",
     .qkv_bias = true},
    {.model_type = "qwen3",
     .causal_class = "Qwen3ForCausalLM",
     .name = "qwen3",
     .attention_bias_key = true,
     .qk_norm = true},
    {.model_type = "deci",
     .causal_class = "DeciLMForCausalLM",
     .name = "deci",
     .attention_bias_key = true,
     .mlp_bias_key = true},
    {.model_type = "nemotron-nas",
     .causal_class = "DeciLMForCausalLM",
     .name = "deci",
     .attention_bias_key = true,
     .mlp_bias_key = true},
};

// Null, and an error, when it is none of those served.
const Architecture* ParseArchitecture(JsonFields& fields) {
  const std::string type = fields.String("model_type");
  std::string served;
  for (const Architecture& architecture : kServed) {
    if (type == architecture.model_type) return &architecture;
    absl::StrAppend(&served, served.empty() ? "" : ", ",
                    architecture.model_type);
  }
  fields.Fail("model_type",
              absl::StrCat(Abridged(type), " is not served",
                           type == "openelm"
                               ? " (only its head counts are read; its fused "
                                 "qkv_proj and shared layers are another "
                                 "architecture)"
                               : "",
                           "; served: ", served));
  return nullptr;
}

// Keys whose other values mean another architecture.
void CheckServed(JsonFields& fields, const Architecture& architecture) {
  if (const nlohmann::json* names = fields.Find("architectures")) {
    bool causal = false;
    if (names->is_array()) {
      for (const nlohmann::json& name : *names) {
        causal = causal || name == architecture.causal_class;
      }
    }
    if (!causal) {
      fields.Fail("architectures",
                  absl::StrCat("does not name ", architecture.causal_class,
                               ", the one that is served of model_type ",
                               architecture.model_type));
    }
  }
  const std::string activation = fields.String("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    fields.Fail("hidden_act", absl::StrCat(Abridged(activation),
                                           " is not supported; supported: "
                                           "silu"));
  }
  if (fields.Has("quantization_config")) {
    fields.Fail("quantization_config",
                "quantised weights are not supported; supported: f32, f16, "
                "bf16");
  }
}

void ParseBiases(JsonFields& fields, const Architecture& architecture,
                 ModelConfig* config) {
  config->attention_out_bias = fields.Bool("attention_bias", false);
  config->qkv_bias = config->attention_out_bias || architecture.qkv_bias;
  config->mlp_bias = fields.Bool("mlp_bias", false);
  config->qk_norm = architecture.qk_norm;
  const auto refuse = [&](const char* key) {
    fields.Fail(key, absl::StrCat("true, but ", architecture.model_type,
                                  " does not have the choice"));
  };
  if (config->attention_out_bias && !architecture.attention_bias_key) {
    refuse("attention_bias");
  }
  if (config->mlp_bias && !architecture.mlp_bias_key) refuse("mlp_bias");
}

// eos_token_id is an int, a list of them or null.
std::vector<int32_t> ParseEos(JsonFields& fields, IntRange ids) {
  const nlohmann::json* value = fields.Find("eos_token_id");
  if (value == nullptr) return {};
  if (value->is_array()) return fields.Ints("eos_token_id", ids);
  return {fields.Int("eos_token_id", ids)};
}

absl::Status ParsePrunedHeads(const nlohmann::json& json, ModelConfig* config) {
  JsonFields fields(json, "pruned_heads");
  if (!fields.status().ok()) return fields.status();
  for (const auto& [key, heads] : json.items()) {
    int32_t layer = -1;
    if (!absl::SimpleAtoi(key, &layer) || layer < 0 ||
        layer >= config->layers) {
      fields.Fail(key.substr(0, 64),
                  absl::StrCat("is not a layer; the model has ", config->layers,
                               " layers (0-", config->layers - 1, ")"));
      break;
    }
    const LayerShape& shape = config->heads[static_cast<size_t>(layer)];
    for (int32_t head : fields.Ints(key, {0, shape.query_heads - 1})) {
      config->pruned_heads.pruned[layer].insert(head);
    }
  }
  return fields.status();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const nlohmann::json& json,
                                             const nlohmann::json& generation) {
  JsonFields fields(json, "");
  const Architecture* architecture = ParseArchitecture(fields);
  if (architecture == nullptr) return fields.status();
  CheckServed(fields, *architecture);
  if (!fields.status().ok()) return fields.status();

  ModelConfig config;
  config.architecture = architecture->name;
  config.layers = fields.Int("num_hidden_layers", kLayers);
  config.hidden = fields.Int("hidden_size", kHidden);
  config.vocab = fields.Int("vocab_size", kVocab);
  config.max_context = fields.Int("max_position_embeddings", kMaxContext);
  absl::Status status = ParseLayerShapes(fields, &config);
  if (!status.ok()) return status;
  config.rms_epsilon =
      fields.Number("rms_norm_eps", kEpsilon, config.rms_epsilon);
  ParseBiases(fields, *architecture, &config);
  config.tied_output = fields.Bool("tie_word_embeddings", false);
  const IntRange ids{0, config.vocab - 1};
  config.bos_id = fields.Int("bos_token_id", ids, -1);
  config.eos_ids = ParseEos(fields, ids);
  if (!fields.status().ok()) return fields.status();

  status = ParseRope(fields, config.max_context, &config.rope);
  if (!status.ok()) return status;
  if (const nlohmann::json* pruned = fields.Find("pruned_heads")) {
    status = ParsePrunedHeads(*pruned, &config);
    if (!status.ok()) return status;
  }
  if (!generation.is_null()) {
    JsonFields overrides(generation, "generation_config");
    if (overrides.Has("eos_token_id")) {
      config.eos_ids = ParseEos(overrides, ids);
    }
    if (!overrides.status().ok()) return overrides.status();
  }
  return config;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& path) {
  const absl::StatusOr<std::optional<std::string>> gguf = FindGguf(path);
  if (!gguf.ok()) return gguf.status();
  if (gguf->has_value()) {
    const absl::StatusOr<GgufFile> opened = OpenGguf(**gguf);
    if (!opened.ok()) return opened.status();
    return ParseGgufConfig(*opened);
  }
  const std::string file = absl::StrCat(path, "/config.json");
  absl::StatusOr<nlohmann::json> json = ReadJsonFile(file);
  if (!json.ok()) return json.status();
  absl::StatusOr<nlohmann::json> generation =
      ReadJsonFile(absl::StrCat(path, "/generation_config.json"));
  if (absl::IsNotFound(generation.status())) generation = nlohmann::json();
  if (!generation.ok()) return generation.status();
  absl::StatusOr<ModelConfig> config = ParseModelConfig(*json, *generation);
  if (!config.ok()) return AtPath(file, config.status());
  return config;
}

}  // namespace headcount
