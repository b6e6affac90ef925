#include "text/spec_builder.h"

#include <array>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "text/byte_fallback.h"
#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/unicode.h"

namespace headcount {
namespace {

bool IsInUtf8(int byte) { return byte < 0xC0 || (byte > 0xC1 && byte < 0xF5); }

// The character that is the whole of `spelling`.
std::optional<char32_t> OneCharacter(std::string_view spelling) {
  if (spelling.empty()) return std::nullopt;
  const Utf8Step step = ReadUtf8(spelling);
  if (step.kind != Utf8Step::Kind::kCharacter || step.size < spelling.size()) {
    return std::nullopt;
  }
  return step.code_point;
}

}  // namespace

absl::Status SpecBuilder::AddToken(const std::string& spelling, int32_t id,
                                   const std::string& field) {
  if (!taken_.insert(id).second) {
    return InvalidField(field, "is ", id, ", the id of another token too");
  }
  if (!ids_.emplace(spelling, id).second) {
    return InvalidField(field, Describe(spelling), " is a token twice");
  }
  spec_.vocabulary.emplace_back(spelling, id);
  return absl::OkStatus();
}

absl::Status SpecBuilder::AddAddedToken(AddedToken token,
                                        const std::string& field) {
  if (!added_.insert(token.content).second) {
    return InvalidField(field + ".content", Describe(token.content),
                        " is added twice");
  }
  const std::optional<int32_t> known = IdOf(token.content);
  const bool id_fits =
      known.has_value() ? *known == token.id : taken_.insert(token.id).second;
  if (!id_fits) {
    return InvalidField(field + ".id", "is ", token.id,
                        ", which the vocabulary or another added token "
                        "contradicts");
  }
  if (token.special) special_.insert(token.id);
  spec_.added_tokens.push_back(std::move(token));
  return absl::OkStatus();
}

absl::Status SpecBuilder::SetAlphabet(bool byte_fallback,
                                      const std::string& field) {
  spec_.byte_fallback = byte_fallback;
  for (int byte = 0; byte < 256; ++byte) {
    const auto value = static_cast<uint8_t>(byte);
    const std::string spelling =
        byte_fallback ? ByteFallbackSpelling(value) : ByteLevelSpelling(value);
    const std::optional<int32_t> id = IdOf(spelling);
    spec_.alphabet.bytes[value] = id.value_or(Alphabet::kNoToken);
    if (id.has_value() && special_.contains(*id)) {
      return InvalidField(field, "the special token \"", spelling,
                          "\" is also that of byte ", byte,
                          ", so that any text could contain it");
    }
    if (!id.has_value() && !missing_byte_.has_value() && IsInUtf8(byte)) {
      missing_byte_ = value;
    }
  }
  return byte_fallback ? SetCharacters(field) : absl::OkStatus();
}

absl::Status SpecBuilder::SetCharacters(const std::string& field) {
  for (const auto& [spelling, id] : spec_.vocabulary) {
    const std::optional<char32_t> character = OneCharacter(spelling);
    if (!character.has_value()) continue;
    if (special_.contains(id)) {
      return InvalidField(field, "the special token ", Describe(spelling),
                          " is one character, so that any text could contain "
                          "it");
    }
    spec_.alphabet.characters.emplace(*character, id);
  }
  return absl::OkStatus();
}

absl::Status SpecBuilder::AddMerge(std::string_view left,
                                   std::string_view right, uint32_t rank,
                                   const std::string& field) {
  const std::string whole = std::string(left).append(right);
  std::array<int32_t, 3> ids;
  const std::array<std::string_view, 3> spellings = {left, right, whole};
  for (size_t i = 0; i < spellings.size(); ++i) {
    const std::optional<int32_t> id = IdOf(spellings[i]);
    if (!id.has_value()) {
      return InvalidField(field, Describe(std::string(spellings[i])),
                          " is not in the vocabulary");
    }
    ids[i] = *id;
  }
  if (special_.contains(ids[2])) {
    return InvalidField(field, "makes the special token ", Describe(whole),
                        ", so that any text could contain it");
  }
  spec_.merges.push_back({ids[0], ids[1], ids[2], rank});
  return absl::OkStatus();
}

absl::Status SpecBuilder::AddMerge(std::string_view pair, uint32_t rank,
                                   const std::string& field) {
  const size_t space = pair.find(' ');
  if (space == pair.npos || pair.find(' ', space + 1) != pair.npos) {
    return InvalidField(field, Describe(std::string(pair)),
                        " is not two tokens");
  }
  return AddMerge(pair.substr(0, space), pair.substr(space + 1), rank, field);
}

absl::Status SpecBuilder::SetPipeline(TextPipeline pipeline,
                                      const std::string& field) {
  for (const auto* ids : {&pipeline.prefix, &pipeline.suffix}) {
    for (const int32_t id : *ids) {
      if (!taken_.contains(id)) {
        return InvalidField(field, "id ", id, " is not that of a token");
      }
    }
  }
  spec_.pipeline = std::move(pipeline);
  return absl::OkStatus();
}

std::optional<int32_t> SpecBuilder::IdOf(std::string_view spelling) const {
  const auto found =
      ids_.find(absl::string_view(spelling.data(), spelling.size()));
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

TokenizerSpec SpecBuilder::Build(bool ignore_merges) && {
  spec_.ignore_merges = ignore_merges;
  return std::move(spec_);
}

}  // namespace headcount
