#include "export/gguf_target.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "export/sliced_config.h"

namespace headcount {
namespace {

constexpr char kDeci[] = "deci";

absl::Status CannotSay(size_t layer, const std::string& reason) {
  return absl::InvalidArgumentError(
      absl::StrCat("layer ", layer, ": ", reason));
}

absl::Status CheckGroups(size_t layer, const LayerHeads& heads) {
  if (EvenShapeOf(heads).absent.empty()) return absl::OkStatus();
  std::vector<std::string> groups;
  for (const KvHead& head : heads.kv_heads) {
    groups.push_back(absl::StrCat(head.index, " serves ", head.num_queries));
  }
  return CannotSay(
      layer, absl::StrCat("GGUF has as many query heads for each KV head of a "
                          "layer, but of those kept, KV head ",
                          absl::StrJoin(groups, ", "), " of them"));
}

// Whether all layers keep as many heads, and some.
bool AreAlike(const PrunedCheckpoint& source) {
  const std::vector<LayerHeads>& layers = source.layout.layers();
  const auto differs = [&](const LayerHeads& layer) {
    return !layer.has_attention() ||
           layer.query_heads.size() != layers[0].query_heads.size() ||
           layer.kv_heads.size() != layers[0].kv_heads.size();
  };
  const std::vector<int32_t>& ffn = source.config.ffn;
  return std::none_of(layers.begin(), layers.end(), differs) &&
         std::all_of(ffn.begin(), ffn.end(),
                     [&](int32_t width) { return width == ffn[0]; });
}

bool AddsBias(const PrunedCheckpoint& source, size_t layer) {
  if (source.repair && source.repair->bias(layer) != nullptr) return true;
  if (!source.config.attention_out_bias) return false;
  // A layer that never had heads may have none.
  return source.config.heads[layer].query_heads > 0;
}

// What the graph of `deci` (llama.cpp, src/models/deci.cpp) leaves out.
absl::Status CheckDeci(const PrunedCheckpoint& source, size_t layer) {
  const LayerHeads& heads = source.layout.layers()[layer];
  if (source.config.qk_norm) {
    return CannotSay(
        layer, absl::StrCat("it keeps other heads than other layers, but ",
                            source.config.architecture,
                            " has norms of queries and keys, and the "
                            "architecture with heads by layer, deci, has not"));
  }
  if (!heads.has_attention() && layer == 0) {
    return CannotSay(layer,
                     "it keeps no head, but llama.cpp takes the size of all "
                     "heads from the first layer: keep a KV head of it");
  }
  if (!heads.has_attention() && AddsBias(source, layer)) {
    return CannotSay(layer,
                     "it keeps no head, but its output projection has a bias, "
                     "which llama.cpp does not add then: keep a KV head of it");
  }
  const bool last = layer + 1 == source.layout.layers().size();
  if (source.config.ffn[layer] == 0 && (heads.has_attention() || last)) {
    return CannotSay(layer,
                     "it has no feed-forward network, and llama.cpp leaves out "
                     "the attention of such a layer");
  }
  return absl::OkStatus();
}

bool HasOutBias(const PrunedCheckpoint& source) {
  for (size_t i = 0; i < source.config.heads.size(); ++i) {
    if (AddsBias(source, i)) return true;
  }
  return false;
}

// Counts of heads and widths, and the size of a head, which does not follow
// from them.
void SetShapes(const PrunedCheckpoint& source, const std::string& architecture,
               GgufKeys* keys) {
  const auto key = [&](const char* name) {
    return absl::StrCat(architecture, ".", name);
  };
  std::vector<int32_t> query_heads;
  std::vector<int32_t> kv_heads;
  for (const LayerHeads& layer : source.layout.layers()) {
    query_heads.push_back(static_cast<int32_t>(layer.query_heads.size()));
    kv_heads.push_back(static_cast<int32_t>(layer.kv_heads.size()));
  }
  const auto set = [&](const char* name, const std::vector<int32_t>& values) {
    if (architecture == kDeci) {
      keys->SetInts(key(name), values);
    } else {
      keys->SetInt(key(name), static_cast<uint32_t>(values[0]));
    }
  };
  set("feed_forward_length", source.config.ffn);
  set("attention.head_count", query_heads);
  set("attention.head_count_kv", kv_heads);
  for (const char* name : {"attention.key_length", "attention.value_length",
                           "rope.dimension_count"}) {
    keys->SetInt(key(name), static_cast<uint32_t>(source.config.head_dim));
  }
}

// The rule of llama3 has no keys: it is a tensor.
absl::Status SetRope(const RopeConfig& rope, const std::string& prefix,
                     GgufKeys* keys) {
  const auto number = [&](const char* name, double value) {
    keys->SetFloat(absl::StrCat(prefix, name), static_cast<float>(value));
  };
  number("rope.freq_base", rope.theta);
  if (rope.type == RopeType::kLinear) {
    keys->SetString(absl::StrCat(prefix, "rope.scaling.type"), "linear");
    number("rope.scaling.factor", rope.factor);
  }
  if (rope.type != RopeType::kYarn) return absl::OkStatus();
  if (rope.mscale != 0.0 || rope.mscale_all_dim != 0.0 || !rope.truncate) {
    return absl::InvalidArgumentError(
        "rope_scaling: mscale, mscale_all_dim and truncate have no keys in "
        "GGUF");
  }
  keys->SetString(absl::StrCat(prefix, "rope.scaling.type"), "yarn");
  number("rope.scaling.factor", rope.factor);
  keys->SetInt(absl::StrCat(prefix, "rope.scaling.original_context_length"),
               static_cast<uint32_t>(rope.original_max_positions));
  number("rope.scaling.yarn_beta_fast", rope.beta_fast);
  number("rope.scaling.yarn_beta_slow", rope.beta_slow);
  if (rope.attention_factor != 0.0) {
    // GGUF has a factor on top of what the extension implies.
    number("rope.scaling.attn_factor",
           rope.attention_factor /
               (rope.factor <= 1.0 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> GgufArchitectureOf(const PrunedCheckpoint& source) {
  const ModelConfig& config = source.config;
  const std::vector<LayerHeads>& layers = source.layout.layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    const absl::Status groups = CheckGroups(i, layers[i]);
    if (!groups.ok()) return groups;
    const int window = layers[i].dense.retention.window;
    if (window > 0 && layers[i].has_attention()) {
      return CannotSay(i, absl::StrCat("it sees the last ", window,
                                       " tokens only, which llama.cpp does not "
                                       "do in this architecture"));
    }
  }
  const bool qwen = config.architecture == "qwen2" || config.qk_norm;
  if (config.qk_norm && (config.qkv_bias || HasOutBias(source))) {
    return absl::InvalidArgumentError(absl::StrCat(
        config.architecture, ": llama.cpp reads no biases of its attention"));
  }
  if (AreAlike(source) && !(qwen && HasOutBias(source))) {
    return qwen ? config.architecture : std::string("llama");
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const absl::Status status = CheckDeci(source, i);
    if (!status.ok()) return status;
  }
  return std::string(kDeci);
}

bool HasPairedRows(const std::string& architecture) {
  return architecture == "llama" || architecture == kDeci;
}

absl::StatusOr<GgufKeys> KeysOf(const PrunedCheckpoint& source,
                                const std::string& architecture) {
  const ModelConfig& config = source.config;
  const std::string prefix = absl::StrCat(architecture, ".");
  GgufKeys keys;
  keys.SetString("general.architecture", architecture);
  const std::pair<const char*, int32_t> kCounts[] = {
      {"vocab_size", config.vocab},
      {"context_length", config.max_context},
      {"embedding_length", config.hidden},
      {"block_count", config.layers}};
  for (const auto& [name, count] : kCounts) {
    keys.SetInt(prefix + name, static_cast<uint32_t>(count));
  }
  SetShapes(source, architecture, &keys);
  keys.SetFloat(prefix + "attention.layer_norm_rms_epsilon",
                static_cast<float>(config.rms_epsilon));
  const absl::Status status = SetRope(config.rope, prefix, &keys);
  if (!status.ok()) return status;
  return keys;
}

absl::StatusOr<GgufKeys> KeysFrom(const GgufMetadata& metadata,
                                  const PrunedCheckpoint& source,
                                  const std::string& architecture) {
  const std::string old_prefix = absl::StrCat(source.config.architecture, ".");
  GgufKeys keys;
  keys.SetString("general.architecture", architecture);
  for (const std::string_view key : metadata.keys()) {
    if (key == "general.architecture" || key.starts_with("split.")) continue;
    absl::StatusOr<std::string> value = metadata.Encoded(key);
    if (!value.ok()) return value.status();
    std::string name(key);
    if (key.starts_with(old_prefix)) {
      name = absl::StrCat(architecture, ".",
                          std::string(key.substr(old_prefix.size())));
    }
    keys.SetEncoded(name, *std::move(value));
  }
  SetShapes(source, architecture, &keys);
  return keys;
}

}  // namespace headcount
