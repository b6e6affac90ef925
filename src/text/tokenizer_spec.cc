#include "text/tokenizer_spec.h"

#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "text/byte_fallback.h"
#include "text/json_fields.h"
#include "text/spec_builder.h"

namespace headcount {
namespace {

using Json = nlohmann::json;

// Settings that would change ids are refused, not ignored.
absl::Status CheckModelSettings(const Json& model) {
  const Json* type = FindMember(model, "type");  // absent in old files
  if (type != nullptr && *type != "BPE") {
    return InvalidField("model.type", Describe(*type),
                        " is not supported; \"BPE\" is");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* affix = FindMember(model, key);
    const bool none =
        affix == nullptr ||
        (affix->is_string() && affix->get_ref<const std::string&>().empty());
    if (!none) {
      return InvalidField(absl::StrCat("model.", key), Describe(*affix),
                          " is not supported; null is");
    }
  }
  const Json* dropout = FindMember(model, "dropout");
  if (dropout != nullptr && *dropout != 0.0) {
    return InvalidField("model.dropout", Describe(*dropout),
                        " is not supported: ids would be random");
  }
  return absl::OkStatus();
}

absl::Status ReadVocabulary(const Json& model, SpecBuilder& builder) {
  const auto vocabulary =
      ReadContainer(model, "vocab", Json::value_t::object, "model.vocab");
  if (!vocabulary.ok()) return vocabulary.status();
  const size_t size = (*vocabulary)->size();
  if (size > static_cast<size_t>(kMaxVocabulary)) {
    return InvalidField("model.vocab", size, " entries; at most ",
                        kMaxVocabulary, " are supported");
  }
  for (const auto& [spelling, json] : (*vocabulary)->items()) {
    const std::string field = absl::StrCat("model.vocab[\"", spelling, "\"]");
    const absl::StatusOr<int32_t> id = ReadIndex(json, kMaxVocabulary, field);
    if (!id.ok()) return id.status();
    absl::Status added = builder.AddToken(spelling, *id, field);
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

absl::StatusOr<AddedToken> ReadAddedToken(const Json& json,
                                          const std::string& field) {
  AddedToken token;
  absl::StatusOr<std::string> content =
      ReadString(json, "content", field + ".content");
  if (!content.ok()) return content.status();
  if (content->empty()) return InvalidField(field + ".content", "is empty");
  token.content = *std::move(content);

  const Json* id_json = FindMember(json, "id");
  const absl::StatusOr<int32_t> id = ReadIndex(
      id_json == nullptr ? Json() : *id_json, kMaxVocabulary, field + ".id");
  if (!id.ok()) return id.status();
  token.id = *id;

  const absl::StatusOr<bool> special =
      ReadBool(json, "special", /*if_absent=*/false, field + ".special");
  if (!special.ok()) return special.status();
  token.special = *special;
  const absl::StatusOr<bool> normalized = ReadBool(
      json, "normalized", /*if_absent=*/!*special, field + ".normalized");
  if (!normalized.ok()) return normalized.status();
  token.normalized = *normalized;

  // How a token is found in text matters only for those that are looked for.
  for (const char* option : {"single_word", "lstrip", "rstrip"}) {
    const std::string option_field = absl::StrCat(field, ".", option);
    const absl::StatusOr<bool> set =
        ReadBool(json, option, /*if_absent=*/false, option_field);
    if (!set.ok()) return set.status();
    if (*set && !token.special) {
      return InvalidField(option_field,
                          "true is supported for special tokens only");
    }
  }
  return token;
}

absl::Status ReadAddedTokens(const Json& root, SpecBuilder& builder) {
  if (FindMember(root, "added_tokens") == nullptr) return absl::OkStatus();
  const auto list =
      ReadContainer(root, "added_tokens", Json::value_t::array, "added_tokens");
  if (!list.ok()) return list.status();
  int index = 0;
  for (const Json& json : **list) {
    const std::string field = absl::StrCat("added_tokens[", index++, "]");
    absl::StatusOr<AddedToken> token = ReadAddedToken(json, field);
    if (!token.ok()) return token.status();
    absl::Status added = builder.AddAddedToken(*std::move(token), field);
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

// A byte-level vocabulary may lack bytes: text that has them loses them, as in
// the reference, unless that would give `unk_token`.
absl::Status ReadAlphabet(const Json& model, bool byte_fallback,
                          SpecBuilder& builder) {
  absl::Status status = builder.SetAlphabet(byte_fallback, "added_tokens");
  if (!status.ok() || !builder.missing_byte().has_value()) return status;
  const uint8_t byte = *builder.missing_byte();
  if (byte_fallback) {
    return InvalidField("model.vocab", "lacks ", ByteFallbackSpelling(byte),
                        ", which byte_fallback needs");
  }
  if (const Json* unknown = FindMember(model, "unk_token")) {
    return InvalidField("model.unk_token", Describe(*unknown),
                        " is not supported, since model.vocab lacks byte ",
                        int{byte});
  }
  return absl::OkStatus();
}

absl::Status ReadMerge(const Json& json, uint32_t rank,
                       const std::string& field, SpecBuilder& builder) {
  if (json.is_string()) {
    return builder.AddMerge(json.get_ref<const std::string&>(), rank, field);
  }
  if (json.is_array() && json.size() == 2 && json[0].is_string() &&
      json[1].is_string()) {
    return builder.AddMerge(json[0].get_ref<const std::string&>(),
                            json[1].get_ref<const std::string&>(), rank, field);
  }
  return InvalidField(field, "is ", Describe(json),
                      ", not \"a b\" or [\"a\", \"b\"]");
}

absl::Status ReadMerges(const Json& model, SpecBuilder& builder) {
  const auto list =
      ReadContainer(model, "merges", Json::value_t::array, "model.merges");
  if (!list.ok()) return list.status();
  if ((*list)->size() > static_cast<size_t>(kMaxMerges)) {
    return InvalidField("model.merges", (*list)->size(), " entries; at most ",
                        kMaxMerges, " are supported");
  }
  uint32_t rank = 0;
  for (const Json& json : **list) {
    absl::Status status = ReadMerge(
        json, rank, absl::StrCat("model.merges[", rank, "]"), builder);
    if (!status.ok()) return status;
    ++rank;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(const Json& root) {
  const auto model =
      ReadContainer(root, "model", Json::value_t::object, "model");
  if (!model.ok()) return model.status();
  const absl::StatusOr<bool> byte_fallback = ReadBool(
      **model, "byte_fallback", /*if_absent=*/false, "model.byte_fallback");
  if (!byte_fallback.ok()) return byte_fallback.status();
  const absl::StatusOr<bool> ignore_merges = ReadBool(
      **model, "ignore_merges", /*if_absent=*/false, "model.ignore_merges");
  if (!ignore_merges.ok()) return ignore_merges.status();

  SpecBuilder builder;
  absl::Status status = CheckModelSettings(**model);
  if (!status.ok()) return status;
  absl::StatusOr<TextPipeline> pipeline =
      ReadTextPipeline(root, *byte_fallback, kMaxVocabulary);
  if (!pipeline.ok()) return pipeline.status();
  if (status.ok()) status = ReadVocabulary(**model, builder);
  if (status.ok()) status = ReadAddedTokens(root, builder);
  if (status.ok()) status = ReadAlphabet(**model, *byte_fallback, builder);
  if (status.ok()) status = ReadMerges(**model, builder);
  if (status.ok()) {
    status = builder.SetPipeline(*std::move(pipeline), "post_processor");
  }
  if (!status.ok()) return status;
  return std::move(builder).Build(*ignore_merges);
}

}  // namespace headcount
