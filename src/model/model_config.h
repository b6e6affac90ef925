// The hyperparameters of a model, validated: what config.json or the keys of a
// GGUF file say, with one spelling. Nothing else in the project reads
// config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "heads/head_layout.h"
#include "nlohmann/json_fwd.hpp"

namespace headcount {

enum class RopeType { kDefault, kLinear, kLlama3, kYarn };

// Both spellings are read: `rope_theta` with `rope_scaling`, and
// `rope_parameters`.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;
  // llama3
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // llama3, yarn; 0: max_position_embeddings
  int64_t original_max_positions = 0;
  // yarn (Peng et al. 2023, arXiv:2309.00071); attention_factor 0: from factor
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double attention_factor = 0.0;
  double mscale = 0.0;
  double mscale_all_dim = 0.0;
  bool truncate = true;  // the ramp's ends to whole dimensions
  // Each pair's frequency is divided by its own: rope_freqs.weight of GGUF,
  // which is how a llama3 rule is stored there. Empty: by nothing.
  std::vector<float> divisors;  // [head_dim / 2]
};

// Whose names the weights have (model/weight_names.h).
enum class WeightNaming { kHuggingFace, kGguf };

struct ModelConfig {
  std::string architecture;  // "llama", "mistral", "qwen2", "qwen3", "deci"
  int32_t layers = 0;
  int32_t hidden = 0;
  std::vector<int32_t> ffn;  // [layers] width; 0: no feed-forward network
  int32_t vocab = 0;
  int32_t head_dim = 0;
  int32_t max_context = 0;
  std::vector<LayerShape> heads;  // [layers]
  double rms_epsilon = 1e-6;
  RopeConfig rope;
  bool qkv_bias = false;
  bool attention_out_bias = false;
  bool qk_norm = false;  // RMSNorm of each query and key head, before rotation
  bool mlp_bias = false;
  bool tied_output = false;
  int32_t bos_id = -1;           // -1: none
  std::vector<int32_t> eos_ids;  // of generation_config.json, else config
  // The old Hugging Face key. The weights may hold these heads, or have lost
  // them already (model/stored_heads.h).
  HeadMask pruned_heads;
  WeightNaming naming = WeightNaming::kHuggingFace;
  // Rows of each head's query and key projection, and their biases, are in the
  // order 0, D/2, 1, D/2 + 1, ...: pairs that are rotated together are
  // neighbours, as llama.cpp's converter writes some architectures.
  bool paired_rows = false;
};

// InvalidArgument naming the key and its value for what is missing, out of
// range (limits in the .cc), inconsistent or not supported. `generation` may
// be null.
absl::StatusOr<ModelConfig> ParseModelConfig(const nlohmann::json& config,
                                             const nlohmann::json& generation);

// Reads a GGUF file (FindGguf), else config.json and, if there,
// generation_config.json of the directory `path`.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& path);

}  // namespace headcount
