#include "model/model_shape.h"

#include <algorithm>
#include <map>
#include <optional>

#include "absl/strings/match.h"
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

constexpr NumberRange kFfnMultiplier{0.0, 16.0};

// torch_dtype, or dtype as it is called since; bfloat16 where neither is there,
// or it is one that is not known here.
ElementType WeightTypeOf(JsonFields& fields) {
  const char* key = fields.Has("dtype") ? "dtype" : "torch_dtype";
  const std::string name = fields.String(key, "bfloat16");
  if (name == "float32") return ElementType::kF32;
  if (name == "float16") return ElementType::kF16;
  return ElementType::kBf16;
}

// What GPT-2 and BERT have in common (Radford et al. 2019; Devlin et al. 2018,
// arXiv:1810.04805): LayerNorm, biases everywhere, one KV head for each query
// head, learned positions.
struct ClassicKeys {
  const char* hidden;
  const char* layers;
  const char* heads;
  const char* positions;
  const char* ffn;
};

ModelShape ParseClassic(JsonFields& fields, const ClassicKeys& keys) {
  ModelShape shape{.served = false,
                   .gated_mlp = false,
                   .qkv_bias = true,
                   .attention_out_bias = true,
                   .mlp_bias = true,
                   .norm_bias = true,
                   .tied_output = true};
  shape.layers = fields.Int(keys.layers, kLayers);
  const int32_t hidden = fields.Int(keys.hidden, kHidden);
  const int32_t heads = fields.Int(keys.heads, kHeads);
  shape.hidden = hidden;
  shape.vocab = fields.Int("vocab_size", kVocab);
  shape.max_context = fields.Int(keys.positions, kMaxContext);
  if (heads > 0 && hidden % heads != 0) {
    fields.Fail(keys.heads, absl::StrCat(heads, " does not divide ",
                                         keys.hidden, " ", hidden));
  }
  const int32_t ffn =
      fields.Int(keys.ffn, kFfn, std::min(4 * hidden, kFfn.max));
  if (!fields.status().ok()) return shape;
  shape.head_dim = hidden / heads;
  const auto layers = static_cast<size_t>(shape.layers);
  shape.heads.assign(layers, {heads, heads});
  shape.ffn.assign(layers, ffn);
  shape.other_parameters = shape.max_context * shape.hidden;
  return shape;
}

ModelShape ParseGpt2(JsonFields& fields) {
  return ParseClassic(fields, {.hidden = "n_embd",
                               .layers = "n_layer",
                               .heads = "n_head",
                               .positions = "n_positions",
                               .ffn = "n_inner"});
}

ModelShape ParseBert(JsonFields& fields) {
  ModelShape shape =
      ParseClassic(fields, {.hidden = "hidden_size",
                            .layers = "num_hidden_layers",
                            .heads = "num_attention_heads",
                            .positions = "max_position_embeddings",
                            .ffn = "intermediate_size"});
  shape.decoder = false;
  const int32_t types = fields.Int("type_vocab_size", {1, 1 << 16}, 2);
  // Token types, and the pooler: a matrix and a bias.
  shape.other_parameters +=
      types * shape.hidden + shape.hidden * shape.hidden + shape.hidden;
  return shape;
}

// Falcon-7B (Almazrouei et al. 2023, arXiv:2311.16867): multi-query, attention
// and MLP side by side after one LayerNorm, a tied output, an MLP four times as
// wide. Its later layouts are others.
ModelShape ParseFalcon(JsonFields& fields) {
  ModelShape shape{.served = false,
                   .gated_mlp = false,
                   .norm_bias = true,
                   .shared_norm = true,
                   .tied_output = true};
  const bool known = fields.Bool("multi_query", true) &&
                     fields.Bool("parallel_attn", true) &&
                     !fields.Bool("new_decoder_architecture", false) &&
                     !fields.Bool("bias", false);
  if (!known) {
    fields.Fail("model_type",
                "of falcon only the multi-query layout of Falcon-7B is known");
  }
  shape.layers = fields.Int("num_hidden_layers", kLayers);
  const int32_t hidden = fields.Int("hidden_size", {1, kFfn.max / 4});
  const int32_t heads = fields.Int("num_attention_heads", kHeads);
  shape.hidden = hidden;
  shape.vocab = fields.Int("vocab_size", kVocab);
  shape.max_context = fields.Int("max_position_embeddings", kMaxContext, 2048);
  if (heads > 0 && hidden % heads != 0) {
    fields.Fail("num_attention_heads",
                absl::StrCat(heads, " does not divide hidden_size ", hidden));
  }
  if (!fields.status().ok()) return shape;
  shape.head_dim = hidden / heads;
  const auto layers = static_cast<size_t>(shape.layers);
  shape.heads.assign(layers, {heads, 1});
  shape.ffn.assign(layers, 4 * hidden);
  return shape;
}

// Mehta et al. 2024, arXiv:2404.14619: widths by layer, as multiples of
// model_dim rounded to ffn_dim_divisor.
ModelShape ParseOpenElm(const nlohmann::json& config, JsonFields& fields) {
  ModelShape shape{
      .served = false,
      .gated_mlp = fields.Bool("ffn_with_glu", true),
      .qk_norm = fields.Bool("normalize_qk_projections", true),
      .tied_output = fields.Bool("share_input_output_layers", true)};
  shape.hidden = fields.Int("model_dim", kHidden);
  shape.vocab = fields.Int("vocab_size", kVocab);
  shape.max_context = fields.Int("max_context_length", kMaxContext);
  const int32_t divisor = fields.Int("ffn_dim_divisor", {1, 65536});
  const nlohmann::json* multipliers = fields.Find("ffn_multipliers");
  const absl::StatusOr<HeadLayoutSpec> heads = ParseHeads(config);
  if (!heads.ok()) {
    // Which names its key in full.
    fields.Fail("openelm", std::string(heads.status().message()));
    return shape;
  }
  shape.layers = static_cast<int64_t>(heads->layers.size());
  shape.heads = heads->layers;
  shape.head_dim = heads->head_dim;
  if (multipliers == nullptr || !multipliers->is_array() ||
      multipliers->size() != heads->layers.size()) {
    fields.Fail("ffn_multipliers",
                absl::StrCat("must be a list of ", heads->layers.size(),
                             " numbers, one for each layer"));
    return shape;
  }
  for (const nlohmann::json& multiplier : *multipliers) {
    const double factor = multiplier.is_number() ? multiplier.get<double>() : 0;
    if (!(factor > kFfnMultiplier.above && factor <= kFfnMultiplier.max)) {
      fields.Fail("ffn_multipliers",
                  absl::StrCat(Abridged(multiplier), " is out of range"));
      return shape;
    }
    // make_divisible of its authors: to the nearest multiple, and one more
    // where that takes away more than a tenth.
    const double wanted = factor * static_cast<double>(shape.hidden);
    int64_t width = std::max<int64_t>(
        divisor,
        static_cast<int64_t>(wanted + divisor / 2.0) / divisor * divisor);
    if (static_cast<double>(width) < 0.9 * wanted) width += divisor;
    shape.ffn.push_back(static_cast<int32_t>(width));
  }
  return shape;
}

// The type of most bytes of the file.
ElementType WeightTypeOf(const GgufFile& file) {
  std::map<ElementType, size_t> bytes;
  for (const TensorEntry& tensor : file.tensors) {
    if (tensor.dtype) bytes[*tensor.dtype] += tensor.data.size();
  }
  const auto most = std::max_element(
      bytes.begin(), bytes.end(),
      [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? ElementType::kF16 : most->first;
}

absl::StatusOr<ModelShape> ReadGgufShape(const std::string& path) {
  const absl::StatusOr<GgufFile> file = OpenGguf(path);
  if (!file.ok()) return file.status();
  const absl::StatusOr<ModelConfig> config = ParseGgufConfig(*file);
  if (!config.ok()) return config.status();
  ModelShape shape = ShapeOf(*config);
  shape.weight_type = WeightTypeOf(*file);
  return shape;
}

}  // namespace

ModelShape ShapeOf(const ModelConfig& config) {
  return {.architecture = config.architecture,
          .layers = config.layers,
          .hidden = config.hidden,
          .vocab = config.vocab,
          .head_dim = config.head_dim,
          .max_context = config.max_context,
          .heads = config.heads,
          .ffn = config.ffn,
          .pruned_heads = config.pruned_heads,
          .qkv_bias = config.qkv_bias,
          .attention_out_bias = config.attention_out_bias,
          .mlp_bias = config.mlp_bias,
          .qk_norm = config.qk_norm,
          .tied_output = config.tied_output};
}

absl::StatusOr<ModelShape> ParseModelShape(const nlohmann::json& config) {
  JsonFields fields(config, "");
  const std::string type = fields.String("model_type");
  ModelShape shape;
  if (type == "gpt2") {
    shape = ParseGpt2(fields);
  } else if (type == "bert") {
    shape = ParseBert(fields);
  } else if (type == "falcon") {
    shape = ParseFalcon(fields);
  } else if (type == "openelm") {
    shape = ParseOpenElm(config, fields);
  } else {
    const absl::StatusOr<ModelConfig> served = ParseModelConfig(config, {});
    if (!served.ok()) return served.status();
    shape = ShapeOf(*served);
  }
  if (!shape.served) shape.architecture = type;
  shape.weight_type = WeightTypeOf(fields);
  if (!fields.status().ok()) return fields.status();
  return shape;
}

absl::StatusOr<ModelShape> ReadModelShape(const std::string& path) {
  std::string file = path;
  if (!absl::EndsWith(path, ".json")) {
    const absl::StatusOr<std::optional<std::string>> gguf = FindGguf(path);
    if (!gguf.ok()) return gguf.status();
    if (gguf->has_value()) return ReadGgufShape(**gguf);
    file = absl::StrCat(path, "/config.json");
  }
  const absl::StatusOr<nlohmann::json> json = ReadJsonFile(file);
  if (!json.ok()) return json.status();
  absl::StatusOr<ModelShape> shape = ParseModelShape(*json);
  if (!shape.ok()) return AtPath(file, shape.status());
  return shape;
}

}  // namespace headcount
