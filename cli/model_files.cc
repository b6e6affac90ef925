#include "cli/model_files.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/human.h"
#include "cli/table.h"
#include "format/checkpoint.h"
#include "format/gguf.h"
#include "heads/kv_dtype.h"
#include "server/config_paths.h"
#include "text/tokenizer.h"

namespace headcount {
namespace {

void ReadTypes(const Checkpoint& checkpoint, ModelFiles* files) {
  std::map<std::string, StoredType> types;
  const auto add = [&](const std::string& name, int64_t bytes,
                       bool computed_with) {
    StoredType& type = types[name];
    type.name = name;
    type.computed_with = computed_with;
    ++type.tensors;
    type.bytes += bytes;
    files->bytes += bytes;
  };
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const auto bytes = static_cast<int64_t>(tensor.data.size());
    add(std::string(ElementTypeName(tensor.dtype)), bytes, true);
    const ElementBlock block = BlockOf(tensor.dtype);
    files->parameters += bytes / block.bytes * block.elements;
  }
  for (const auto& [name, tensor] : checkpoint.unread()) {
    add(std::string(tensor.type_name), tensor.bytes, false);
  }
  for (auto& [name, type] : types) files->types.push_back(std::move(type));
  std::stable_sort(files->types.begin(), files->types.end(),
                   [](const StoredType& a, const StoredType& b) {
                     return a.bytes > b.bytes;
                   });
}

// What the file calls its tokenizer: "gpt2, smollm".
std::string TokenizerKind(const std::optional<std::string>& gguf_path) {
  if (!gguf_path) return "tokenizer.json";
  const absl::StatusOr<GgufFile> file = OpenGguf(*gguf_path);
  if (!file.ok()) return "";
  std::vector<std::string> names;
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.pre"}) {
    const absl::StatusOr<std::string> name = file->metadata.String(key);
    if (name.ok()) names.push_back(*name);
  }
  return absl::StrJoin(names, ", ");
}

// "3", or "1 to 4" where layers differ.
std::string PerLayer(const std::vector<int32_t>& counts) {
  const auto [least, most] = std::minmax_element(counts.begin(), counts.end());
  if (*least == *most) return absl::StrCat(*most);
  return absl::StrCat(*least, " to ", *most);
}

std::string PerLayer(const std::vector<LayerShape>& layers,
                     int LayerShape::*count) {
  std::vector<int32_t> counts;
  for (const LayerShape& layer : layers) counts.push_back(layer.*count);
  return PerLayer(counts);
}

// Keys and values of one token in every head.
int64_t KvBytesPerToken(const ModelConfig& config) {
  int64_t kv_heads = 0;
  for (const LayerShape& layer : config.heads) kv_heads += layer.kv_heads;
  return kv_heads * 2 * KvRowBytes(config.head_dim, KvDtype::kF16);
}

std::string RenderTypes(const std::vector<StoredType>& types) {
  Table table(
      {{"TYPE"}, {"TENSORS", Align::kRight}, {"BYTES", Align::kRight}, {""}});
  for (const StoredType& type : types) {
    table.AddRow({type.name, FormatCount(type.tensors),
                  FormatByteSize(type.bytes),
                  type.computed_with ? "" : "not supported"});
  }
  return table.Render();
}

}  // namespace

ModelFiles ReadModelFiles(const std::string& path) {
  ModelFiles files;
  files.path = path;
  if (absl::Status status = CheckExists(path); !status.ok()) {
    files.problems.push_back(std::move(status));
    return files;
  }
  const absl::StatusOr<std::optional<std::string>> gguf = FindGguf(path);
  if (!gguf.ok()) {
    files.problems.push_back(gguf.status());
    return files;
  }
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(path);
  if (checkpoint.ok()) {
    files.format = gguf->has_value() ? "GGUF" : "safetensors";
    ReadTypes(*checkpoint, &files);
  } else {
    files.problems.push_back(checkpoint.status());
    // The rest of a broken file would only repeat why.
    if (gguf->has_value()) return files;
  }
  absl::StatusOr<ModelConfig> config = ReadModelConfig(path);
  if (config.ok()) {
    files.config = *std::move(config);
  } else {
    files.problems.push_back(config.status());
  }
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(path);
  if (tokenizer.ok()) {
    files.tokenizer =
        absl::StrCat(TokenizerKind(*gguf), ", ",
                     FormatCount(tokenizer->vocab_size()), " tokens");
  } else {
    files.problems.push_back(tokenizer.status());
  }
  return files;
}

std::string RenderModelFiles(const ModelFiles& files) {
  std::vector<std::pair<std::string, std::string>> fields = {
      {"path", files.path},
      {"format", files.format.empty() ? "unknown" : files.format}};
  if (files.config) {
    const ModelConfig& config = *files.config;
    fields.emplace_back(
        "architecture",
        absl::StrCat(config.architecture, ", ", config.layers,
                     " layers, hidden ", config.hidden, ", MLP ",
                     PerLayer(config.ffn), ", vocabulary ",
                     FormatCount(config.vocab)));
    fields.emplace_back(
        "heads of a layer",
        absl::StrCat(PerLayer(config.heads, &LayerShape::query_heads),
                     " for queries, ",
                     PerLayer(config.heads, &LayerShape::kv_heads),
                     " for keys and values, head dim ", config.head_dim));
    fields.emplace_back(
        "context", absl::StrCat(FormatCount(config.max_context), " tokens"));
    fields.emplace_back("KV per token",
                        absl::StrCat(FormatByteSize(KvBytesPerToken(config)),
                                     " with all heads at 16 bits"));
  }
  if (!files.tokenizer.empty()) {
    fields.emplace_back("tokenizer", files.tokenizer);
  }
  if (!files.types.empty()) {
    fields.emplace_back("weights", absl::StrCat(FormatCount(files.parameters),
                                                " parameters in ",
                                                FormatByteSize(files.bytes)));
  }
  std::string text = RenderFields(fields);
  if (!files.types.empty()) {
    absl::StrAppend(&text, "\n", RenderTypes(files.types));
  }
  for (const absl::Status& problem : files.problems) {
    absl::StrAppend(&text, "\nnot served: ", problem.message(), "\n");
  }
  return text;
}

Json ModelFilesJson(const ModelFiles& files) {
  Json json = {{"path", files.path},           {"format", files.format},
               {"tokenizer", files.tokenizer}, {"parameters", files.parameters},
               {"bytes", files.bytes},         {"types", Json::array()}};
  for (const StoredType& type : files.types) {
    json["types"].push_back({{"name", type.name},
                             {"tensors", type.tensors},
                             {"bytes", type.bytes},
                             {"supported", type.computed_with}});
  }
  if (files.config) {
    const ModelConfig& config = *files.config;
    json["architecture"] = config.architecture;
    json["num_layers"] = config.layers;
    json["head_dim"] = config.head_dim;
    json["max_context"] = config.max_context;
    json["kv_bytes_per_token"] = KvBytesPerToken(config);
  }
  json["problems"] = Json::array();
  for (const absl::Status& problem : files.problems) {
    json["problems"].push_back(std::string(problem.message()));
  }
  return json;
}

}  // namespace headcount
