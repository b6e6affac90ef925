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

// The heads of every layer. head_dim is its own key where heads were pruned or
// widened, and hidden / heads only without it.
void ParseHeads(JsonFields& fields, ModelConfig* config) {
  const int32_t query_heads = fields.Int("num_attention_heads", kHeads);
  const int32_t kv_heads =
      fields.Int("num_key_value_heads", kHeads, query_heads);
  if (query_heads % kv_heads != 0) {
    fields.Fail("num_key_value_heads",
                absl::StrCat(kv_heads, " does not divide num_attention_heads ",
                             query_heads));
  }
  if (!fields.Has("head_dim") && config->hidden % query_heads != 0) {
    fields.Fail("num_attention_heads",
                absl::StrCat(query_heads, " does not divide hidden_size ",
                             config->hidden, ", and head_dim is missing"));
  }
  config->head_dim =
      fields.Int("head_dim", kHeadDim, config->hidden / query_heads);
  if (config->head_dim < kHeadDim.min || config->head_dim > kHeadDim.max ||
      config->head_dim % 2 != 0) {
    fields.Fail("head_dim",
                absl::StrCat(config->head_dim, " must be an even number from ",
                             kHeadDim.min, " to ", kHeadDim.max));
  }
  config->heads.assign(static_cast<size_t>(config->layers),
                       LayerShape{query_heads, kv_heads});
}

// Keys whose other values mean another architecture.
void CheckServed(JsonFields& fields) {
  const std::string type = fields.String("model_type");
  if (type != "llama") {
    fields.Fail("model_type",
                absl::StrCat(Abridged(type), " is not served; served: llama"));
  }
  if (const nlohmann::json* names = fields.Find("architectures")) {
    bool causal = false;
    if (names->is_array()) {
      for (const nlohmann::json& name : *names) {
        causal = causal || name == "LlamaForCausalLM";
      }
    }
    if (!causal) {
      fields.Fail("architectures",
                  "does not name LlamaForCausalLM, the one that is served");
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
  CheckServed(fields);
  if (!fields.status().ok()) return fields.status();

  ModelConfig config;
  config.architecture = "llama";
  config.layers = fields.Int("num_hidden_layers", kLayers);
  config.hidden = fields.Int("hidden_size", kHidden);
  config.ffn = fields.Int("intermediate_size", kFfn);
  config.vocab = fields.Int("vocab_size", kVocab);
  config.max_context = fields.Int("max_position_embeddings", kMaxContext);
  ParseHeads(fields, &config);
  config.rms_epsilon =
      fields.Number("rms_norm_eps", kEpsilon, config.rms_epsilon);
  config.attention_bias = fields.Bool("attention_bias", false);
  config.mlp_bias = fields.Bool("mlp_bias", false);
  config.tied_output = fields.Bool("tie_word_embeddings", false);
  const IntRange ids{0, config.vocab - 1};
  config.bos_id = fields.Int("bos_token_id", ids, -1);
  config.eos_ids = ParseEos(fields, ids);
  if (!fields.status().ok()) return fields.status();

  absl::Status status = ParseRope(fields, config.max_context, &config.rope);
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
