// What of a model costs memory and arithmetic, read from its configuration
// alone. Wider than ModelConfig: architectures that are not served can be
// planned for too, to know what it would take.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/element_type.h"
#include "heads/head_layout.h"
#include "model/model_config.h"
#include "nlohmann/json_fwd.hpp"

namespace headcount {

struct ModelShape {
  std::string architecture = {};  // as config.json's model_type
  bool served = true;             // `headcount serve` can run it
  bool decoder = true;            // false: an encoder, which caches no K and V
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t vocab = 0;
  int32_t head_dim = 0;
  int64_t max_context = 0;
  std::vector<LayerShape> heads = {};  // [layers]
  std::vector<int32_t> ffn = {};       // [layers] width; 0: none
  HeadMask pruned_heads = {};          // by the configuration itself

  bool gated_mlp = true;  // three matrices, else two
  bool qkv_bias = false;
  bool attention_out_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;    // a vector of head_dim each
  bool norm_bias = false;  // LayerNorm: a weight and a bias
  // One norm for attention and MLP, which read the same input.
  bool shared_norm = false;
  bool tied_output = false;  // or there is none, as in an encoder
  // Parameters besides layers, the vocabulary's matrices and the last norm:
  // positions, token types, a pooler.
  int64_t other_parameters = 0;

  // Of the weights, as the configuration says (torch_dtype, dtype), or most of
  // a GGUF file's bytes.
  ElementType weight_type = ElementType::kBf16;
};

// What `config` says of a model that is served.
ModelShape ShapeOf(const ModelConfig& config);

// The same of a config.json: of all architectures that are served, and of
// "bert", "falcon" (multi-query), "gpt2" and "openelm". InvalidArgument naming
// the key.
absl::StatusOr<ModelShape> ParseModelShape(const nlohmann::json& config);

// Reads `path`: a config.json by whatever name ending in .json, a folder with
// one, or GGUF (FindGguf). No weights are read.
absl::StatusOr<ModelShape> ReadModelShape(const std::string& path);

}  // namespace headcount
