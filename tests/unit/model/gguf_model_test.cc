// A GGUF file and the Hugging Face directory that it was converted from are the
// same model. The conversion here follows llama.cpp's convert_hf_to_gguf.py
// (classes LlamaModel, Qwen2Model, Qwen3Model) and shares nothing with the
// reader.
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <numbers>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/format/gguf_writer.h"
#include "tests/unit/format/temp_folder.h"
#include "tests/unit/model/checkpoint_writer.h"
#include "tests/unit/model/model_runner.h"
#include "tests/unit/model/reference_backend.h"

namespace headcount {
namespace {

using ::testing::HasSubstr;

const char kTiny[] = HEADCOUNT_SOURCE_DIR "/tests/data/golden/tiny/";

// Numbers of the file format.
constexpr uint32_t kGgmlF32 = 0;
constexpr uint32_t kGgmlF16 = 1;
constexpr uint32_t kGgmlBf16 = 30;

uint32_t GgmlTypeOf(ElementType dtype) {
  if (dtype == ElementType::kF32) return kGgmlF32;
  return dtype == ElementType::kF16 ? kGgmlF16 : kGgmlBf16;
}

// "model.layers.3.mlp.up_proj.bias" -> "blk.3.ffn_up.bias".
std::string GgufNameOf(std::string name) {
  const std::pair<std::string, std::string> kReplacements[] = {
      {"model.embed_tokens", "token_embd"},
      {"model.norm", "output_norm"},
      {"lm_head", "output"},
      {"model.layers", "blk"},
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"self_attn.o_proj", "attn_output"},
      {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  for (const auto& [from, to] : kReplacements) {
    const size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, from.size(), to);
  }
  return name;
}

// reshape(heads, 2, D / 2, cols).swapaxes(1, 2), of rows of `row_bytes`.
std::string Permuted(const std::string& data, int64_t heads, size_t row_bytes) {
  const int64_t rows = static_cast<int64_t>(data.size() / row_bytes);
  const int64_t half = rows / heads / 2;
  std::string permuted;
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t pair = 0; pair < half; ++pair) {
      for (int64_t side = 0; side < 2; ++side) {
        const int64_t row = (head * 2 + side) * half + pair;
        permuted +=
            data.substr(static_cast<size_t>(row) * row_bytes, row_bytes);
      }
    }
  }
  return permuted;
}

uint32_t HeadDimOf(const nlohmann::json& config) {
  const auto hidden = config.at("hidden_size").get<uint32_t>();
  const auto heads = config.at("num_attention_heads").get<uint32_t>();
  return config.value("head_dim", hidden / heads);
}

// prefix: the architecture and a dot.
void AddRope(const nlohmann::json& config, const std::string& prefix,
             GgufWriter* writer) {
  nlohmann::json rope = nlohmann::json::object();
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.contains(key) && config.at(key).is_object()) {
      rope = config.at(key);
    }
  }
  const float theta =
      rope.value("rope_theta", config.value("rope_theta", 10000.0F));
  writer->AddFloat(prefix + "rope.freq_base", theta);
  writer->AddInt(prefix + "rope.dimension_count", HeadDimOf(config));
  const std::string type =
      rope.value("rope_type", rope.value("type", std::string("default")));
  if (type == "linear" || type == "yarn") {
    writer->AddString(prefix + "rope.scaling.type", type);
    writer->AddFloat(prefix + "rope.scaling.factor", rope.at("factor"));
  }
  if (type == "yarn") {
    writer->AddInt(prefix + "rope.scaling.original_context_length",
                   rope.at("original_max_position_embeddings"));
  }
  if (type != "llama3") return;
  const double context = rope.at("original_max_position_embeddings");
  const double factor = rope.at("factor");
  const double low = rope.at("low_freq_factor");
  const double high = rope.at("high_freq_factor");
  const auto dimensions = static_cast<int>(HeadDimOf(config));
  std::string divisors;
  for (int i = 0; i < dimensions; i += 2) {
    const double wavelength = 2 * std::numbers::pi *
                              std::pow(static_cast<double>(theta),
                                       i / static_cast<double>(dimensions));
    const double smooth = (context / wavelength - low) / (high - low);
    double divisor = 1 / ((1 - smooth) / factor + smooth);
    if (wavelength < context / high) divisor = 1;
    if (wavelength > context / low) divisor = factor;
    divisors += Bytes(static_cast<float>(divisor));
  }
  writer->AddTensor("rope_freqs.weight",
                    {static_cast<uint64_t>(dimensions / 2)}, kGgmlF32,
                    divisors);
}

// `model` as a GGUF file; head counts as arrays if `arrays`.
std::string GgufOf(const WritableModel& model, bool arrays) {
  GgufWriter writer;
  const nlohmann::json& config = model.config;
  const auto prefix = config.at("model_type").get<std::string>() + ".";
  const auto layers = config.at("num_hidden_layers").get<size_t>();
  const auto query_heads = config.at("num_attention_heads").get<int32_t>();
  const auto kv_heads = config.at("num_key_value_heads").get<int32_t>();
  writer.AddString("general.architecture",
                   config.at("model_type").get<std::string>());
  writer.AddInt(prefix + "block_count", static_cast<uint32_t>(layers));
  writer.AddInt(prefix + "embedding_length", config.at("hidden_size"));
  writer.AddInt(prefix + "feed_forward_length", config.at("intermediate_size"));
  writer.AddInt(prefix + "context_length",
                config.at("max_position_embeddings"));
  writer.AddFloat(prefix + "attention.layer_norm_rms_epsilon",
                  config.at("rms_norm_eps"));
  if (arrays) {
    writer.AddInts(prefix + "attention.head_count",
                   std::vector<int32_t>(layers, query_heads));
    writer.AddInts(prefix + "attention.head_count_kv",
                   std::vector<int32_t>(layers, kv_heads));
  } else {
    writer.AddInt(prefix + "attention.head_count",
                  static_cast<uint32_t>(query_heads));
    writer.AddInt(prefix + "attention.head_count_kv",
                  static_cast<uint32_t>(kv_heads));
  }
  writer.AddInt(prefix + "attention.key_length", HeadDimOf(config));
  writer.AddInt(prefix + "attention.value_length", HeadDimOf(config));
  AddRope(config, prefix, &writer);
  for (const auto& [name, tensor] : model.tensors) {
    const std::vector<uint64_t> dims(tensor.shape.rbegin(),
                                     tensor.shape.rend());
    const bool permuted = prefix == "llama.";
    const bool query = permuted && name.find("q_proj") != std::string::npos;
    const bool key = permuted && name.find("k_proj") != std::string::npos;
    const size_t row_bytes =
        tensor.data.size() / static_cast<size_t>(tensor.shape[0]);
    writer.AddTensor(
        GgufNameOf(name), dims, GgmlTypeOf(tensor.dtype),
        query || key
            ? Permuted(tensor.data, query ? query_heads : kv_heads, row_bytes)
            : tensor.data);
  }
  return writer.File();
}

std::vector<LogitsRow> LogitsOf(const std::string& path, const HeadMask& mask) {
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  ModelRunner runner(
      backend.get(),
      {.model = {.path = path, .mask = mask, .kv_dtype = KvDtype::kF32}});
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 48; ++i) ids.push_back((i * 37 + 11) % 320);
  return runner.RunAlone(ids, 16);
}

// llama3's rule is stored as float32 divisors, which rounds once more.
double ToleranceOf(const std::string& name) {
  return name == "llama_rope_llama3" ? 1e-4 : 0;
}

TEST(GgufModel, IsTheModelThatItWasConvertedFrom) {
  HeadMask mask;
  mask.pruned = {{0, {1}}, {1, {0, 1, 2}}, {2, {0}}};
  int models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kTiny)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("llama_", 0) != 0 && name.rfind("qwen", 0) != 0) continue;
    SCOPED_TRACE(name);
    const WritableModel model = WritableModel::ReadFrom(entry.path().string());
    const TempFolder folder;
    folder.Write("model.gguf", GgufOf(model, models % 2 == 0));
    for (const HeadMask& heads : {HeadMask{}, mask}) {
      const auto want = LogitsOf(entry.path().string(), heads);
      const auto found = LogitsOf(folder.path().string(), heads);
      ASSERT_EQ(found.size(), want.size());
      for (size_t row = 0; row < want.size(); ++row) {
        ASSERT_EQ(found[row].size(), want[row].size());
        for (size_t i = 0; i < want[row].size(); ++i) {
          ASSERT_NEAR(found[row][i], want[row][i], ToleranceOf(name));
        }
      }
    }
    ++models;
  }
  EXPECT_GE(models, 9);
}

absl::Status LoadStatus(const std::string& gguf) {
  const TempFolder folder;
  const std::string path = folder.Write("model.gguf", gguf);
  const std::unique_ptr<Backend> backend = CreateReferenceBackend();
  const absl::Status status =
      Model::Load({.path = path}, backend.get()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr(path + ": "));
  return status;
}

TEST(GgufModel, NamesTheTensorThatIsMissingOrNotSupported) {
  const WritableModel model =
      WritableModel::ReadFrom(std::string(kTiny) + "llama_bias");
  WritableModel changed = model;
  changed.tensors.erase("model.layers.2.mlp.down_proj.weight");
  EXPECT_THAT(std::string(LoadStatus(GgufOf(changed, false)).message()),
              HasSubstr("tensor blk.2.ffn_down.weight is missing; the keys of "
                        "the file imply one of shape [96, 112]"));

  changed = model;
  changed.config["intermediate_size"] = 128;
  EXPECT_THAT(std::string(LoadStatus(GgufOf(changed, false)).message()),
              HasSubstr("tensor blk.0.ffn_gate.weight has shape [112, 96], but "
                        "the keys of the file imply [128, 96]"));

  const std::string good = GgufOf(model, false);
  const std::string embedding =
      GgufTensor("token_embd.weight", {96, 320}, kGgmlBf16, 0);
  ASSERT_NE(good.find(embedding.substr(0, 30)), std::string::npos);
  std::string other = good;
  constexpr uint32_t kGgmlI16 = 25;
  const size_t type =
      good.find(embedding.substr(0, 30)) + embedding.size() - 12;
  other.replace(type, 4, Bytes(kGgmlI16));
  EXPECT_THAT(std::string(LoadStatus(other).message()),
              HasSubstr("tensor token_embd.weight is stored as I16, which is "
                        "not supported"));
}

}  // namespace
}  // namespace headcount
