#include "model/layer_shapes.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/model_limits.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

constexpr IntRange kWindow{1, 1 << 24};
constexpr NumberRange kFfnMult{0.0, 1024.0};

// The defaults of transformers' configuration classes, for keys left out.
constexpr int32_t kDefaultWindow = 4096;
constexpr int32_t kDefaultFullLayers = 28;

size_t Index(int32_t layer) { return static_cast<size_t>(layer); }

bool IsList(const JsonFields& fields, const char* key) {
  return fields.Has(key) && fields.Find(key)->is_array();
}

// One number for all layers, or a list of them, which may have zeros: what such
// a layer has none of.
std::vector<int32_t> PerLayer(JsonFields& fields, const char* key,
                              IntRange range, int32_t layers) {
  if (!IsList(fields, key)) {
    return std::vector<int32_t>(Index(layers), fields.Int(key, range));
  }
  std::vector<int32_t> values = fields.Ints(key, {0, range.max});
  if (values.size() != Index(layers)) {
    fields.Fail(key, absl::StrCat("lists ", values.size(), " layers, but the ",
                                  "model has ", layers));
    values.assign(Index(layers), 0);
  }
  return values;
}

// "num_key_value_heads[3]" in a list, else the key alone.
std::string NameIn(const JsonFields& fields, const char* key, int32_t layer) {
  return IsList(fields, key) ? absl::StrCat(key, "[", layer, "]")
                             : std::string(key);
}

// query_heads and kv_heads: the keys.
std::vector<LayerShape> PairHeads(JsonFields& fields, const char* query_heads,
                                  const char* kv_heads, int32_t layers) {
  const std::vector<int32_t> query =
      PerLayer(fields, query_heads, kHeads, layers);
  const std::vector<int32_t> kv =
      fields.Has(kv_heads) ? PerLayer(fields, kv_heads, kHeads, layers) : query;
  std::vector<LayerShape> shapes(Index(layers));
  for (int32_t i = 0; i < layers; ++i) {
    LayerShape& shape = shapes[Index(i)];
    shape = {query[Index(i)], kv[Index(i)]};
    // Where one of the two is the same for all layers, only the other can say
    // that a layer has no attention.
    if (shape.kv_heads == 0 && !IsList(fields, query_heads)) {
      shape.query_heads = 0;
    }
    if (shape.query_heads == 0 && !IsList(fields, kv_heads)) {
      shape.kv_heads = 0;
    }
    const bool divides =
        shape.kv_heads == 0
            ? shape.query_heads == 0
            : shape.query_heads % shape.kv_heads == 0 && shape.query_heads > 0;
    if (!divides) {
      fields.Fail(
          NameIn(fields, kv_heads, i),
          absl::StrCat(shape.kv_heads, " does not divide ",
                       NameIn(fields, query_heads, i), " ", shape.query_heads));
    }
  }
  return shapes;
}

// A list may have a name of its own, beside that of the number: DeciLM's for KV
// heads, and others after it.
const char* KeyOf(const JsonFields& fields, const char* key,
                  const char* per_layer) {
  return fields.Has(per_layer) ? per_layer : key;
}

const char* QueryHeadsKey(const JsonFields& fields) {
  return KeyOf(fields, "num_attention_heads", "num_attention_heads_per_layer");
}

// head_dim is its own key where heads were pruned or widened, and hidden /
// heads only without it.
int32_t ParseHeadDim(JsonFields& fields, int32_t hidden) {
  constexpr const char* kQueryHeads = "num_attention_heads";
  int32_t head_dim = 0;
  if (fields.Has("head_dim")) {
    head_dim = fields.Int("head_dim", kHeadDim);
  } else if (IsList(fields, QueryHeadsKey(fields))) {
    fields.Fail("head_dim",
                absl::StrCat("missing; it does not follow from a list of ",
                             QueryHeadsKey(fields)));
  } else {
    const int32_t query_heads = fields.Int(kQueryHeads, kHeads);
    if (hidden % query_heads != 0) {
      fields.Fail(kQueryHeads,
                  absl::StrCat(query_heads, " does not divide hidden_size ",
                               hidden, ", and head_dim is missing"));
    }
    head_dim = hidden / query_heads;
  }
  if (head_dim < kHeadDim.min || head_dim > kHeadDim.max || head_dim % 2 != 0) {
    fields.Fail("head_dim",
                absl::StrCat(head_dim, " must be an even number from ",
                             kHeadDim.min, " to ", kHeadDim.max));
  }
  return head_dim;
}

// The object at `key` of block `layer`, or an empty one.
const nlohmann::json& PartOf(const nlohmann::json& block, const char* key) {
  static const auto* const empty = new nlohmann::json(nlohmann::json::object());
  const auto part = block.find(key);
  return part == block.end() || part->is_null() ? *empty : *part;
}

void RefuseLinear(JsonFields& part) {
  if (!part.Bool("replace_with_linear", false)) return;
  part.Fail("replace_with_linear",
            "a linear layer in its place is not supported; supported: the "
            "whole part, or no_op");
}

absl::Status ParseBlockAttention(const nlohmann::json& json,
                                 const std::string& path, int32_t query_heads,
                                 LayerShape* shape) {
  JsonFields part(json, path);
  RefuseLinear(part);
  if (part.Has("window_length")) {
    part.Fail("window_length", "windows of single blocks are not supported");
  }
  *shape = LayerShape{};
  if (part.Bool("no_op", false) || !part.status().ok()) return part.status();
  shape->query_heads = query_heads;
  if (part.Has("num_key_value_heads")) {
    shape->kv_heads = part.Int("num_key_value_heads", kHeads);
  } else {
    const int32_t group = part.Int("n_heads_in_group", kHeads);
    if (query_heads % group != 0) {
      part.Fail("n_heads_in_group",
                absl::StrCat(group, " does not divide num_attention_heads ",
                             query_heads));
    }
    shape->kv_heads = query_heads / group;
  }
  if (shape->kv_heads < 1 || query_heads % shape->kv_heads != 0) {
    part.Fail(
        "num_key_value_heads",
        absl::StrCat(shape->kv_heads, " does not divide num_attention_heads ",
                     query_heads));
  }
  return part.status();
}

absl::Status ParseBlockFfn(const nlohmann::json& json, const std::string& path,
                           int32_t hidden, int32_t* width) {
  JsonFields part(json, path);
  RefuseLinear(part);
  *width = 0;
  if (part.Bool("no_op", false) || !part.status().ok()) return part.status();
  if (part.Has("intermediate_size")) {
    *width = part.Int("intermediate_size", kFfn);
    return part.status();
  }
  // Of a gated network, rounded up to whole 256s, as its authors compute it.
  const double wanted =
      2 * part.Number("ffn_mult", kFfnMult) * static_cast<double>(hidden) / 3;
  const int64_t rounded = (static_cast<int64_t>(wanted) + 255) / 256 * 256;
  if (rounded < kFfn.min || rounded > kFfn.max) {
    part.Fail("ffn_mult",
              absl::StrCat("a width of ", rounded, " is out of range; must be ",
                           kFfn.min, " to ", kFfn.max));
    return part.status();
  }
  *width = static_cast<int32_t>(rounded);
  return part.status();
}

// What Puzzle (Bercovich et al. 2024, arXiv:2411.19146) writes: attention and
// feed-forward network of every layer.
absl::Status ParseBlocks(JsonFields& fields, ModelConfig* config) {
  const nlohmann::json& blocks = *fields.Find("block_configs");
  if (!blocks.is_array() || blocks.size() != Index(config->layers)) {
    fields.Fail("block_configs",
                absl::StrCat("must be a list of ", config->layers,
                             " blocks, one for each layer"));
  }
  const int32_t query_heads = fields.Int("num_attention_heads", kHeads);
  if (!fields.status().ok()) return fields.status();
  config->heads.resize(Index(config->layers));
  config->ffn.resize(Index(config->layers));
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::string path = absl::StrCat("block_configs[", i, "]");
    JsonFields block(blocks[i], path);
    absl::Status status = block.status();
    if (status.ok()) {
      status = ParseBlockAttention(PartOf(blocks[i], "attention"),
                                   path + ".attention", query_heads,
                                   &config->heads[i]);
    }
    if (status.ok()) {
      status = ParseBlockFfn(PartOf(blocks[i], "ffn"), path + ".ffn",
                             config->hidden, &config->ffn[i]);
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Which layers have the window: those that layer_types names, or else those
// from `first` on.
void SetWindows(JsonFields& fields, int32_t window, int32_t first,
                ModelConfig* config) {
  const nlohmann::json* types = fields.Find("layer_types");
  if (types != nullptr &&
      (!types->is_array() || types->size() != config->heads.size())) {
    fields.Fail("layer_types",
                absl::StrCat("must be a list of ", config->layers, " names"));
    return;
  }
  for (size_t i = 0; i < config->heads.size(); ++i) {
    bool windowed = static_cast<int32_t>(i) >= first;
    if (types != nullptr) {
      const nlohmann::json& type = (*types)[i];
      windowed = type == "sliding_attention";
      if (!windowed && type != "full_attention") {
        fields.Fail(absl::StrCat("layer_types[", i, "]"),
                    absl::StrCat(Abridged(type),
                                 " is not supported; supported: "
                                 "full_attention, sliding_attention"));
      }
    }
    if (!windowed) continue;
    if (window == 0) {
      if (types == nullptr) continue;
      fields.Fail(absl::StrCat("layer_types[", i, "]"),
                  "sliding_attention needs a sliding_window");
    }
    // One that holds the whole context is no window.
    if (window < config->max_context) {
      config->heads[i].retention.window = window;
    }
  }
}

// 0: none, which null says.
int32_t ParseWindow(JsonFields& fields) {
  constexpr const char* kKey = "sliding_window";
  if (fields.Contains(kKey) && !fields.Has(kKey)) return 0;
  return fields.Int(kKey, kWindow, kDefaultWindow);
}

// Of Mistral, where sliding_window alone switches them on; of Qwen2 and Qwen3,
// where use_sliding_window does.
void ParseWindows(JsonFields& fields, ModelConfig* config) {
  if (config->architecture == "mistral") {
    SetWindows(fields, ParseWindow(fields), 0, config);
  } else if (config->architecture == "qwen2" ||
             config->architecture == "qwen3") {
    const bool use = fields.Bool("use_sliding_window", false);
    const int32_t window = use ? ParseWindow(fields) : 0;
    const int32_t first =
        fields.Int("max_window_layers", {0, INT32_MAX}, kDefaultFullLayers);
    SetWindows(fields, window, first, config);
  }
}

}  // namespace

absl::Status ParseLayerShapes(JsonFields& fields, ModelConfig* config) {
  if (fields.Has("block_configs")) {
    absl::Status status = ParseBlocks(fields, config);
    if (!status.ok()) return status;
  } else {
    config->heads = PairHeads(
        fields, QueryHeadsKey(fields),
        KeyOf(fields, "num_key_value_heads", "num_key_value_heads_per_layer"),
        config->layers);
    config->ffn = PerLayer(
        fields,
        KeyOf(fields, "intermediate_size", "intermediate_size_per_layer"), kFfn,
        config->layers);
  }
  config->head_dim = ParseHeadDim(fields, config->hidden);
  ParseWindows(fields, config);
  return fields.status();
}

absl::StatusOr<HeadLayoutSpec> ParseHeads(const nlohmann::json& config) {
  JsonFields fields(config, "");
  if (fields.String("model_type") != "openelm") {
    absl::StatusOr<ModelConfig> served = ParseModelConfig(config, {});
    if (!served.ok()) return served.status();
    return HeadLayoutSpec{.layers = served->heads,
                          .head_dim = served->head_dim};
  }
  // Mehta et al. 2024, arXiv:2404.14619.
  const int32_t layers = fields.Int("num_transformer_layers", kLayers);
  HeadLayoutSpec spec{
      .layers = PairHeads(fields, "num_query_heads", "num_kv_heads", layers),
      .head_dim = fields.Int("head_dim", kHeadDim)};
  if (!fields.status().ok()) return fields.status();
  return spec;
}

}  // namespace headcount
