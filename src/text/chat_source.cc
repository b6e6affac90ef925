#include "text/chat_source.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/sha256.h"
#include "nlohmann/json.hpp"
#include "text/json_fields.h"

namespace headcount {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kConfig[] = "tokenizer_config.json";
constexpr char kJinja[] = "chat_template.jinja";
constexpr uintmax_t kMaxJinjaBytes = 1 << 20;

absl::Status NoTemplate() {
  return absl::NotFoundError("it has no chat template");
}

// Empty if the file names no such token.
absl::StatusOr<std::string> GgufToken(const GgufMetadata& metadata,
                                      const std::string& key,
                                      const Tokenizer& tokenizer) {
  if (!metadata.Has(key)) return "";
  const absl::StatusOr<int64_t> id = metadata.Int(key);
  if (!id.ok() || *id < 0 || *id >= tokenizer.vocab_size()) {
    return InvalidField(key, "is not the id of a token");
  }
  return std::string(tokenizer.TokenBytes(static_cast<int32_t>(*id)));
}

absl::StatusOr<ChatSource> ReadGguf(const std::string& path,
                                    const Tokenizer& tokenizer) {
  constexpr char kKey[] = "tokenizer.chat_template";
  const absl::StatusOr<GgufFile> gguf = OpenGguf(path);
  if (!gguf.ok()) return gguf.status();
  const GgufMetadata& metadata = gguf->metadata;
  if (!metadata.Has(kKey)) return NoTemplate();
  const absl::StatusOr<std::string> text = metadata.String(kKey);
  if (!text.ok()) return InvalidField(kKey, "is not a string");
  absl::StatusOr<std::string> sha256 = Sha256Hex(*text);
  if (!sha256.ok()) return sha256.status();
  ChatSource source{
      .sha256 = *std::move(sha256), .bos = {}, .eos = {}, .text = *text};
  absl::StatusOr<std::string> bos =
      GgufToken(metadata, "tokenizer.ggml.bos_token_id", tokenizer);
  if (!bos.ok()) return bos.status();
  source.bos = *std::move(bos);
  absl::StatusOr<std::string> eos =
      GgufToken(metadata, "tokenizer.ggml.eos_token_id", tokenizer);
  if (!eos.ok()) return eos.status();
  source.eos = *std::move(eos);
  return source;
}

// "<s>" or {"content": "<s>"}; empty if absent.
absl::StatusOr<std::string> ConfigToken(const Json& config,
                                        const std::string& key) {
  const Json* value = FindMember(config, key);
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  return ReadString(*value, "content",
                    absl::StrCat(kConfig, ": ", key, ".content"));
}

// A text, or a list of {"name", "template"} with one named "default"; empty if
// absent.
absl::StatusOr<std::string> ConfigTemplate(const Json& config) {
  const std::string field = absl::StrCat(kConfig, ": chat_template");
  const Json* value = FindMember(config, "chat_template");
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  if (!value->is_array()) {
    return InvalidField(field, "is neither a string nor a list");
  }
  for (const Json& entry : *value) {
    const Json* name = FindMember(entry, "name");
    if (name == nullptr || *name != "default") continue;
    return ReadString(entry, "template", field + "[].template");
  }
  return InvalidField(field, "has no entry named \"default\"");
}

absl::StatusOr<std::string> JinjaTemplate(const fs::path& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (error || size > kMaxJinjaBytes) {
    return InvalidField(kJinja, "is no file of at most ", kMaxJinjaBytes,
                        " bytes");
  }
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

absl::StatusOr<ChatSource> ReadChatSource(const std::string& path,
                                          const Tokenizer& tokenizer) {
  const absl::StatusOr<std::optional<std::string>> gguf = FindGguf(path);
  if (!gguf.ok()) return gguf.status();
  if (gguf->has_value()) return ReadGguf(**gguf, tokenizer);

  const fs::path directory(path);
  std::error_code error;
  Json config = Json::object();
  if (fs::exists(directory / kConfig, error)) {
    absl::StatusOr<Json> read = ReadJsonFile((directory / kConfig).string());
    if (!read.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(kConfig, " cannot be read as JSON"));
    }
    config = *std::move(read);
  }
  // As in transformers, the file wins over the field.
  const absl::StatusOr<std::string> text =
      fs::exists(directory / kJinja, error) ? JinjaTemplate(directory / kJinja)
                                            : ConfigTemplate(config);
  if (!text.ok()) return text.status();
  if (text->empty()) return NoTemplate();
  absl::StatusOr<std::string> sha256 = Sha256Hex(*text);
  if (!sha256.ok()) return sha256.status();
  ChatSource source{
      .sha256 = *std::move(sha256), .bos = {}, .eos = {}, .text = *text};
  absl::StatusOr<std::string> bos = ConfigToken(config, "bos_token");
  if (!bos.ok()) return bos.status();
  source.bos = *std::move(bos);
  absl::StatusOr<std::string> eos = ConfigToken(config, "eos_token");
  if (!eos.ok()) return eos.status();
  source.eos = *std::move(eos);
  return source;
}

}  // namespace headcount
