#include "server/field_checks.h"

#include <algorithm>
#include <utility>

#include "server/limits.h"

namespace headcount {

absl::Status FirstError(std::initializer_list<absl::Status> checks) {
  for (const absl::Status& status : checks) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckCount(absl::string_view field, int count, int most) {
  if (count <= most) return absl::OkStatus();
  return FieldError(field, absl::StrCat(count, " entries; at most ", most));
}

absl::Status CheckIds(absl::string_view field, absl::Span<const int32_t> ids,
                      int32_t vocab) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab) {
      return FieldError(
          absl::StrCat(field, "[", i, "]"),
          absl::StrCat(ids[i], " is not a token id; from 0 to ", vocab - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status TooLong(absl::string_view field, int64_t tokens,
                     const ServedModel& model) {
  return FieldError(field,
                    absl::StrCat(tokens, " tokens; the context of '",
                                 model.name, "' is ", model.max_context),
                    Reason::kTooLong);
}

absl::Status CheckTextBytes(absl::string_view field, absl::string_view text,
                            const ServedModel& model) {
  const int64_t most = int64_t{kMaxPromptBytesPerToken} * model.max_context;
  if (static_cast<int64_t>(text.size()) <= most) return absl::OkStatus();
  return FieldError(
      field,
      absl::StrCat(text.size(), " bytes; at most ", most, ", which is ",
                   kMaxPromptBytesPerToken, " for each token of the context"),
      Reason::kTooLong);
}

absl::StatusOr<std::vector<int32_t>> CheckedIds(absl::string_view field,
                                                const v1::TokenIds& tokens,
                                                const ServedModel& model) {
  if (tokens.ids_size() > model.max_context) {
    return TooLong(field, tokens.ids_size(), model);
  }
  const absl::Status status = CheckIds(field, tokens.ids(), model.vocab);
  if (!status.ok()) return status;
  return std::vector<int32_t>(tokens.ids().begin(), tokens.ids().end());
}

absl::StatusOr<std::vector<int32_t>> EncodedText(absl::string_view field,
                                                 const std::string& text,
                                                 TextPlace place,
                                                 const ServedModel& model) {
  const absl::Status status = CheckTextBytes(field, text, model);
  if (!status.ok()) return status;
  return model.tokenizer->Encode(text, place);
}

absl::StatusOr<std::vector<int32_t>> EncodedAnswer(absl::string_view field,
                                                   const std::string& text,
                                                   TextPlace place,
                                                   const ServedModel& model) {
  if (text.empty()) return FieldError(field, "empty");
  absl::StatusOr<std::vector<int32_t>> ids =
      EncodedText(field, text, place, model);
  if (ids.ok() && ids->empty()) return FieldError(field, "has no tokens");
  return ids;
}

absl::StatusOr<std::vector<int32_t>> EncodedPrompt(absl::string_view field,
                                                   const std::string& text,
                                                   const ServedModel& model) {
  absl::StatusOr<std::vector<int32_t>> ids =
      EncodedText(field, text, TextPlace::kStart, model);
  if (!ids.ok()) return ids;
  std::vector<int32_t> prompt;
  AppendIds(model.tokenizer->prefix(), &prompt);
  AppendIds(*ids, &prompt);
  return prompt;
}

absl::StatusOr<std::vector<int32_t>> GivenIds(absl::string_view field,
                                              const v1::TokenIds& tokens,
                                              const ServedModel& model) {
  const std::string ids = absl::StrCat(field, ".ids");
  if (tokens.ids().empty()) return FieldError(ids, "empty; at least one");
  return CheckedIds(ids, tokens, model);
}

absl::StatusOr<std::vector<float>> CheckedGates(absl::string_view field,
                                                const v1::HeadGates& gates,
                                                const ServedModel& model) {
  const v1::Model& description = model.description;
  if (gates.layers_size() != description.layers_size()) {
    return FieldError(
        absl::StrCat(field, ".layers"),
        absl::StrCat(gates.layers_size(), " entries; '", model.name, "' has ",
                     description.layers_size(), " layers"));
  }
  std::vector<float> checked;
  for (int l = 0; l < gates.layers_size(); ++l) {
    const v1::LayerHeads& layer = description.layers(l);
    const int heads = layer.query_heads_unpruned();
    const auto& given = gates.layers(l).query_heads();
    const std::string heads_field =
        absl::StrCat(field, ".layers[", l, "].query_heads");
    if (given.empty()) {
      checked.resize(checked.size() + static_cast<size_t>(heads), 1.0f);
      continue;
    }
    if (given.size() != heads) {
      return FieldError(
          heads_field,
          absl::StrCat(given.size(), " entries; the unpruned layer has ", heads,
                       " query heads"));
    }
    for (int head = 0; head < heads; ++head) {
      const std::string entry = absl::StrCat(heads_field, "[", head, "]");
      const absl::Status range = CheckRange(entry, given[head], 0.0f, 1.0f);
      if (!range.ok()) return range;
      if (given[head] != 0 &&
          !std::binary_search(layer.query_heads().begin(),
                              layer.query_heads().end(), head)) {
        return FieldError(entry, "the head is pruned; its gate can only be 0");
      }
      checked.push_back(given[head]);
    }
  }
  return checked;
}

absl::Status CheckSaltBytes(absl::string_view salt) {
  if (salt.size() <= kMaxCacheSaltBytes) return absl::OkStatus();
  return FieldError("cache_salt", absl::StrCat(salt.size(), " bytes; at most ",
                                               kMaxCacheSaltBytes));
}

void AppendIds(absl::Span<const int32_t> from, std::vector<int32_t>* to) {
  to->insert(to->end(), from.begin(), from.end());
}

}  // namespace headcount
