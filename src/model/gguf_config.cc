#include "model/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/gguf_fields.h"
#include "model/model_limits.h"
#include "model/weight_names.h"

namespace headcount {
namespace {

constexpr std::string_view kArchitectureKey = "general.architecture";

// An architecture as llama.cpp names it.
struct Architecture {
  const char* name;
  // Its converter turns halves of query and key heads into pairs.
  bool paired_rows;
  bool qk_norm;
};

// llama is Mistral's too; deci is for layers that differ in their heads.
constexpr Architecture kArchitectures[] = {
    {.name = "llama", .paired_rows = true, .qk_norm = false},
    {.name = "deci", .paired_rows = true, .qk_norm = false},
    {.name = "qwen2", .paired_rows = false, .qk_norm = false},
    {.name = "qwen3", .paired_rows = false, .qk_norm = true},
};

const TensorEntry* FindTensor(const GgufFile& file, const std::string& name) {
  const auto found =
      std::find_if(file.tensors.begin(), file.tensors.end(),
                   [&](const TensorEntry& t) { return t.name == name; });
  return found == file.tensors.end() ? nullptr : &*found;
}

absl::Status InvalidTensor(const GgufFile& file, const std::string& name,
                           const std::string& message) {
  return absl::InvalidArgumentError(
      absl::StrCat(file.metadata.what(), ": tensor ", name, " ", message));
}

absl::StatusOr<const Architecture*> FindArchitecture(
    const GgufMetadata& metadata) {
  const absl::StatusOr<std::string> name = metadata.String(kArchitectureKey);
  if (!name.ok()) {
    return absl::InvalidArgumentError(name.status().message());
  }
  const auto* const found = std::find_if(
      std::begin(kArchitectures), std::end(kArchitectures),
      [&](const Architecture& served) { return *name == served.name; });
  if (found != std::end(kArchitectures)) return found;
  const std::string served = absl::StrJoin(
      kArchitectures, ", ", [](std::string* out, const Architecture& one) {
        absl::StrAppend(out, one.name);
      });
  return metadata.Invalid(
      kArchitectureKey,
      absl::StrCat(Abridged(*name), " is not served; served: ", served));
}

// Keys of other models under the name of one that is served.
void CheckServed(GgufFields& fields) {
  if (fields.Int("expert_count", {0, INT32_MAX}, 0) > 0) {
    fields.Fail("expert_count", "a mixture of experts is not supported");
  }
  if (!fields.Bool("attention.causal", true)) {
    fields.Fail("attention.causal",
                "attention to later tokens is not supported");
  }
}

// Widths of the feed-forward networks; an array may have zeros, a layer
// without.
std::vector<int32_t> ParseFfn(GgufFields& fields, int32_t layers) {
  constexpr char kKey[] = "feed_forward_length";
  return fields.PerLayer(kKey, layers,
                         {fields.IsArray(kKey) ? 0 : kFfn.min, kFfn.max});
}

// 0 query heads and 0 KV heads: a layer without attention.
std::vector<LayerShape> ParseHeads(GgufFields& fields, int32_t layers) {
  constexpr IntRange kHeadsOrNone{0, kHeads.max};
  const std::vector<int32_t> query =
      fields.PerLayer("attention.head_count", layers, kHeadsOrNone);
  const std::vector<int32_t> kv =
      fields.Has("attention.head_count_kv")
          ? fields.PerLayer("attention.head_count_kv", layers, kHeadsOrNone)
          : query;
  std::vector<LayerShape> heads;
  for (size_t i = 0; i < query.size(); ++i) {
    if (query[i] != 0 && kv[i] == 0) {
      fields.Fail("attention.head_count_kv",
                  absl::StrCat("0, but attention.head_count ", query[i],
                               " of layer ", i,
                               ": a linear layer in place of attention is not "
                               "supported"));
    }
    if ((query[i] == 0) != (kv[i] == 0) ||
        (kv[i] != 0 && query[i] % kv[i] != 0)) {
      fields.Fail("attention.head_count_kv",
                  absl::StrCat(kv[i], " does not divide attention.head_count ",
                               query[i], " of layer ", i));
    }
    heads.push_back({query[i], kv[i]});
  }
  if (std::all_of(query.begin(), query.end(), [](int n) { return n == 0; })) {
    fields.Fail("attention.head_count", "0: no layer has a head");
  }
  return heads;
}

int32_t ParseHeadDim(GgufFields& fields, const ModelConfig& config) {
  constexpr char kKey[] = "attention.key_length";
  int32_t head_dim = 0;
  if (fields.Has(kKey)) {
    head_dim = fields.Int(kKey, kHeadDim);
  } else {
    const auto layer =
        std::find_if(config.heads.begin(), config.heads.end(),
                     [](const LayerShape& l) { return l.query_heads > 0; });
    const int32_t heads = layer == config.heads.end() ? 1 : layer->query_heads;
    if (config.hidden % heads != 0) {
      fields.Fail("attention.head_count",
                  absl::StrCat(heads, " does not divide embedding_length ",
                               config.hidden, ", and ", kKey, " is missing"));
    }
    head_dim = config.hidden / heads;
  }
  if (head_dim < kHeadDim.min || head_dim > kHeadDim.max || head_dim % 2 != 0) {
    fields.Fail(kKey, absl::StrCat(head_dim, " must be an even number from ",
                                   kHeadDim.min, " to ", kHeadDim.max));
  }
  for (const char* same : {"attention.value_length", "rope.dimension_count"}) {
    const int32_t length = fields.Int(same, {0, kHeadDim.max}, head_dim);
    if (length != head_dim) {
      fields.Fail(same, absl::StrCat(length, " is not the head dimension, ",
                                     head_dim, ", as it has to be"));
    }
  }
  return head_dim;
}

// `rope.scale_linear` is from before `rope.scaling.type`.
void ParseRope(GgufFields& fields, int32_t max_context, RopeConfig* rope) {
  rope->theta = fields.Number("rope.freq_base", kTheta, rope->theta);
  const std::string type = fields.String(
      "rope.scaling.type", fields.Has("rope.scale_linear") ? "linear" : "none");
  if (type == "none") return;
  rope->factor =
      fields.Number("rope.scaling.factor", kFactor,
                    fields.Number("rope.scale_linear", kFactor, rope->factor));
  if (type == "linear") {
    rope->type = RopeType::kLinear;
    return;
  }
  if (type != "yarn") {
    fields.Fail("rope.scaling.type",
                absl::StrCat(Abridged(type),
                             " is not supported; supported: "
                             "none, linear, yarn"));
    return;
  }
  rope->type = RopeType::kYarn;
  rope->original_max_positions = fields.Int(
      "rope.scaling.original_context_length", kMaxContext, max_context);
  rope->beta_fast =
      fields.Number("rope.scaling.yarn_beta_fast", kFactor, rope->beta_fast);
  rope->beta_slow =
      fields.Number("rope.scaling.yarn_beta_slow", kFactor, rope->beta_slow);
  if (rope->beta_fast < rope->beta_slow) {
    fields.Fail(
        "rope.scaling.yarn_beta_fast",
        absl::StrCat(rope->beta_fast, " must not be less than yarn_beta_slow ",
                     rope->beta_slow));
  }
  // A factor on top of what the extension implies.
  const double attention =
      fields.Number("rope.scaling.attn_factor", kFactor, 1.0);
  if (attention != 1.0) {
    rope->attention_factor =
        attention *
        (rope->factor <= 1.0 ? 1.0 : 0.1 * std::log(rope->factor) + 1.0);
  }
}

absl::Status ReadDivisors(const GgufFile& file, ModelConfig* config) {
  const std::string name = "rope_freqs.weight";
  const TensorEntry* tensor = FindTensor(file, name);
  if (tensor == nullptr) return absl::OkStatus();
  const int32_t pairs = config->head_dim / 2;
  if (tensor->dtype != ElementType::kF32 ||
      tensor->shape != std::vector<int64_t>{pairs}) {
    return InvalidTensor(
        file, name,
        absl::StrCat("is ", std::string(tensor->type_name), " of shape [",
                     absl::StrJoin(tensor->shape, ", "), "], not F32 of [",
                     pairs, "]"));
  }
  std::vector<float>& divisors = config->rope.divisors;
  divisors.resize(static_cast<size_t>(pairs));
  Dequantize(ElementType::kF32, tensor->data.data(), 0, pairs, divisors.data());
  for (const float divisor : divisors) {
    if (!(divisor > 0 && divisor <= kFactor.max)) {
      return InvalidTensor(file, name,
                           absl::StrCat("holds ", divisor,
                                        "; must be greater than 0 and at "
                                        "most ",
                                        kFactor.max));
    }
  }
  return absl::OkStatus();
}

// What the tensors say that are there.
absl::Status ReadTensors(const GgufFile& file, ModelConfig* config) {
  const WeightNames& names = WeightNamesOf(WeightNaming::kGguf);
  const auto weight = [](const char* name) {
    return absl::StrCat(name, ".weight");
  };
  const TensorEntry* embedding = FindTensor(file, weight(names.embedding));
  if (embedding == nullptr) {
    return InvalidTensor(file, weight(names.embedding), "is missing");
  }
  if (embedding->shape.size() != 2 || embedding->shape[0] > kVocab.max) {
    return InvalidTensor(
        file, embedding->name,
        absl::StrCat("has shape [", absl::StrJoin(embedding->shape, ", "),
                     "], not one of up to ", kVocab.max, " rows"));
  }
  config->vocab = static_cast<int32_t>(embedding->shape[0]);
  config->tied_output = FindTensor(file, weight(names.output)) == nullptr;
  const auto has_bias = [&](const char* name) {
    for (int32_t layer = 0; layer < config->layers; ++layer) {
      if (FindTensor(file, absl::StrCat(names.layers, layer, ".", name,
                                        ".bias")) != nullptr) {
        return true;
      }
    }
    return false;
  };
  config->qkv_bias = has_bias(names.query);
  config->attention_out_bias = has_bias(names.attention_out);
  config->mlp_bias = has_bias(names.gate);
  return ReadDivisors(file, config);
}

// Ids that end an answer: of the text, and of a turn in a chat.
void ParseTokens(GgufFields& fields, ModelConfig* config) {
  const IntRange ids{0, config->vocab - 1};
  config->bos_id = fields.Int("tokenizer.ggml.bos_token_id", ids, -1);
  for (const char* key :
       {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id"}) {
    const int32_t id = fields.Int(key, ids, -1);
    std::vector<int32_t>& eos = config->eos_ids;
    if (id >= 0 && std::find(eos.begin(), eos.end(), id) == eos.end()) {
      eos.push_back(id);
    }
  }
}

}  // namespace

absl::StatusOr<ModelConfig> ParseGgufConfig(const GgufFile& file) {
  const absl::StatusOr<const Architecture*> architecture =
      FindArchitecture(file.metadata);
  if (!architecture.ok()) return architecture.status();
  GgufFields fields(file.metadata, (*architecture)->name);
  CheckServed(fields);

  ModelConfig config;
  config.architecture = (*architecture)->name;
  config.naming = WeightNaming::kGguf;
  config.paired_rows = (*architecture)->paired_rows;
  config.qk_norm = (*architecture)->qk_norm;
  config.layers = fields.Int("block_count", kLayers);
  config.hidden = fields.Int("embedding_length", kHidden);
  config.max_context = fields.Int("context_length", kMaxContext);
  config.rms_epsilon =
      fields.Number("attention.layer_norm_rms_epsilon", kEpsilon);
  config.ffn = ParseFfn(fields, config.layers);
  config.heads = ParseHeads(fields, config.layers);
  if (!fields.status().ok()) return fields.status();
  config.head_dim = ParseHeadDim(fields, config);
  ParseRope(fields, config.max_context, &config.rope);
  if (!fields.status().ok()) return fields.status();

  const absl::Status status = ReadTensors(file, &config);
  if (!status.ok()) return status;
  ParseTokens(fields, &config);
  if (!fields.status().ok()) return fields.status();
  return config;
}

}  // namespace headcount
