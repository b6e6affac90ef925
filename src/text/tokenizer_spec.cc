#include "text/tokenizer_spec.h"

#include <cstddef>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "text/byte_level.h"
#include "text/json_fields.h"

namespace headcount {
namespace {

using Json = nlohmann::json;

// Reads one file; holds the maps that only reading needs.
class SpecReader {
 public:
  explicit SpecReader(const Json& root) : root_(root) {}

  absl::StatusOr<TokenizerSpec> Read();

 private:
  absl::Status ReadVocabulary(const Json& model);
  absl::Status ReadAddedTokens();
  absl::StatusOr<AddedToken> ReadAddedToken(const Json& json,
                                            const std::string& field);
  absl::Status ReadBytes(const Json& model);
  absl::Status ReadMerges(const Json& model);
  absl::StatusOr<BpeMerge> ReadMerge(const Json& json,
                                     const std::string& field);
  absl::Status CheckTemplateIds() const;

  const Json& root_;
  TokenizerSpec spec_;
  absl::flat_hash_map<std::string, int32_t> ids_;  // by spelling
  absl::flat_hash_set<int32_t> taken_;             // ids that name a token
  absl::flat_hash_set<int32_t> special_;
};

// Settings that would change ids are refused, not ignored.
absl::Status CheckModelSettings(const Json& model) {
  const Json* type = FindMember(model, "type");  // absent in old files
  if (type != nullptr && *type != "BPE") {
    return InvalidField("model.type", Describe(*type),
                        " is not supported; \"BPE\" is");
  }
  const absl::StatusOr<bool> byte_fallback = ReadBool(
      model, "byte_fallback", /*if_absent=*/false, "model.byte_fallback");
  if (!byte_fallback.ok()) return byte_fallback.status();
  if (*byte_fallback) {
    return InvalidField("model.byte_fallback", "true is not supported");
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

absl::Status SpecReader::ReadVocabulary(const Json& model) {
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
    if (!taken_.insert(*id).second) {
      return InvalidField(field, "is ", *id, ", the id of another token too");
    }
    ids_.emplace(spelling, *id);
    spec_.vocabulary.emplace_back(spelling, *id);
  }
  return absl::OkStatus();
}

absl::StatusOr<AddedToken> SpecReader::ReadAddedToken(
    const Json& json, const std::string& field) {
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

absl::Status SpecReader::ReadAddedTokens() {
  if (FindMember(root_, "added_tokens") == nullptr) return absl::OkStatus();
  const auto list = ReadContainer(root_, "added_tokens", Json::value_t::array,
                                  "added_tokens");
  if (!list.ok()) return list.status();
  absl::flat_hash_set<std::string> contents;
  for (const Json& json : **list) {
    const std::string field =
        absl::StrCat("added_tokens[", spec_.added_tokens.size(), "]");
    absl::StatusOr<AddedToken> token = ReadAddedToken(json, field);
    if (!token.ok()) return token.status();
    if (!contents.insert(token->content).second) {
      return InvalidField(field + ".content", Describe(token->content),
                          " is added twice");
    }
    const auto in_vocabulary = ids_.find(token->content);
    const bool id_fits = in_vocabulary == ids_.end()
                             ? taken_.insert(token->id).second
                             : in_vocabulary->second == token->id;
    if (!id_fits) {
      return InvalidField(field + ".id", "is ", token->id,
                          ", which model.vocab or another added token "
                          "contradicts");
    }
    if (token->special) special_.insert(token->id);
    spec_.added_tokens.push_back(*std::move(token));
  }
  return absl::OkStatus();
}

// A vocabulary may lack bytes: text that has them loses them, as in the
// reference, unless that would give `unk_token`.
absl::Status SpecReader::ReadBytes(const Json& model) {
  const Json* unknown = FindMember(model, "unk_token");
  for (int byte = 0; byte < 256; ++byte) {
    const std::string spelling = ByteLevelSpelling(static_cast<uint8_t>(byte));
    const auto found = ids_.find(spelling);
    const bool known = found != ids_.end();
    spec_.byte_ids[static_cast<size_t>(byte)] =
        known ? found->second : Bpe::kNoToken;
    if (known && special_.contains(found->second)) {
      return InvalidField("added_tokens", "the special token \"", spelling,
                          "\" is also that of byte ", byte,
                          ", so that any text could contain it");
    }
    // These bytes are nowhere in UTF-8.
    const bool in_utf8 = byte < 0xC0 || (byte > 0xC1 && byte < 0xF5);
    if (!known && in_utf8 && unknown != nullptr) {
      return InvalidField("model.unk_token", Describe(*unknown),
                          " is not supported, since model.vocab lacks byte ",
                          byte);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<BpeMerge> SpecReader::ReadMerge(const Json& json,
                                               const std::string& field) {
  std::string left;
  std::string right;
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != text.npos) {
      return InvalidField(field, Describe(json), " is not two tokens");
    }
    left = text.substr(0, space);
    right = text.substr(space + 1);
  } else if (json.is_array() && json.size() == 2 && json[0].is_string() &&
             json[1].is_string()) {
    left = json[0].get_ref<const std::string&>();
    right = json[1].get_ref<const std::string&>();
  } else {
    return InvalidField(field, "is ", Describe(json),
                        ", not \"a b\" or [\"a\", \"b\"]");
  }
  const std::array<std::string, 3> spellings = {left, right, left + right};
  for (const std::string& spelling : spellings) {
    if (!ids_.contains(spelling)) {
      return InvalidField(field, Describe(spelling), " is not in model.vocab");
    }
  }
  const BpeMerge merge = {ids_[spellings[0]], ids_[spellings[1]],
                          ids_[spellings[2]]};
  if (special_.contains(merge.result)) {
    return InvalidField(field, "makes the special token ",
                        Describe(spellings[2]),
                        ", so that any text could contain it");
  }
  return merge;
}

absl::Status SpecReader::ReadMerges(const Json& model) {
  const auto list =
      ReadContainer(model, "merges", Json::value_t::array, "model.merges");
  if (!list.ok()) return list.status();
  if ((*list)->size() > static_cast<size_t>(kMaxMerges)) {
    return InvalidField("model.merges", (*list)->size(), " entries; at most ",
                        kMaxMerges, " are supported");
  }
  spec_.merges.reserve((*list)->size());
  for (const Json& json : **list) {
    const absl::StatusOr<BpeMerge> merge = ReadMerge(
        json, absl::StrCat("model.merges[", spec_.merges.size(), "]"));
    if (!merge.ok()) return merge.status();
    spec_.merges.push_back(*merge);
  }
  return absl::OkStatus();
}

absl::Status SpecReader::CheckTemplateIds() const {
  for (const auto* ids : {&spec_.pipeline.prefix, &spec_.pipeline.suffix}) {
    for (const int32_t id : *ids) {
      if (!taken_.contains(id)) {
        return InvalidField("post_processor", "id ", id,
                            " is not that of a token");
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerSpec> SpecReader::Read() {
  const auto model =
      ReadContainer(root_, "model", Json::value_t::object, "model");
  if (!model.ok()) return model.status();
  absl::StatusOr<TextPipeline> pipeline =
      ReadTextPipeline(root_, kMaxVocabulary);
  if (!pipeline.ok()) return pipeline.status();
  spec_.pipeline = *std::move(pipeline);

  const absl::StatusOr<bool> ignore_merges = ReadBool(
      **model, "ignore_merges", /*if_absent=*/false, "model.ignore_merges");
  if (!ignore_merges.ok()) return ignore_merges.status();
  spec_.ignore_merges = *ignore_merges;

  absl::Status status = CheckModelSettings(**model);
  if (status.ok()) status = ReadVocabulary(**model);
  if (status.ok()) status = ReadAddedTokens();
  if (status.ok()) status = ReadBytes(**model);
  if (status.ok()) status = ReadMerges(**model);
  if (status.ok()) status = CheckTemplateIds();
  if (!status.ok()) return status;
  return std::move(spec_);
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(const Json& root) {
  return SpecReader(root).Read();
}

}  // namespace headcount
