// Checks that the fields of several requests have in common. Errors are those
// of errors.h, with the path of the field.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "headcount/v1/inference.pb.h"
#include "server/errors.h"
#include "server/limits.h"
#include "server/model_setup.h"
#include "text/text_place.h"

namespace headcount {

// The first that is not OK.
absl::Status FirstError(std::initializer_list<absl::Status> checks);

// NaN is in no range.
template <typename T>
absl::Status CheckRange(absl::string_view field, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return FieldError(field,
                    absl::StrCat(value, " is not from ", low, " to ", high));
}

absl::Status CheckCount(absl::string_view field, int count, int most);

absl::Status CheckIds(absl::string_view field, absl::Span<const int32_t> ids,
                      int32_t vocab);

// `tokens` are over the context.
absl::Status TooLong(absl::string_view field, int64_t tokens,
                     const ServedModel& model);

// Refuses text that would be over the context however well it is tokenised.
absl::Status CheckTextBytes(absl::string_view field, absl::string_view text,
                            const ServedModel& model);

// Ids of the vocabulary, no more than the context holds.
absl::StatusOr<std::vector<int32_t>> CheckedIds(absl::string_view field,
                                                const v1::TokenIds& tokens,
                                                const ServedModel& model);

absl::StatusOr<std::vector<int32_t>> EncodedText(absl::string_view field,
                                                 const std::string& text,
                                                 TextPlace place,
                                                 const ServedModel& model);

// The same of a text that may follow a prompt, such as a continuation or a
// choice: at least one token, whatever the prompt's are.
absl::StatusOr<std::vector<int32_t>> EncodedAnswer(absl::string_view field,
                                                   const std::string& text,
                                                   TextPlace place,
                                                   const ServedModel& model);

// A text with the tokens that the tokenizer puts before it.
absl::StatusOr<std::vector<int32_t>> EncodedPrompt(absl::string_view field,
                                                   const std::string& text,
                                                   const ServedModel& model);

// As CheckedIds, at least one; `field` is that of `tokens`.
absl::StatusOr<std::vector<int32_t>> GivenIds(absl::string_view field,
                                              const v1::TokenIds& tokens,
                                              const ServedModel& model);

// Gates as Request::head_gates.
absl::StatusOr<std::vector<float>> CheckedGates(absl::string_view field,
                                                const v1::HeadGates& gates,
                                                const ServedModel& model);

absl::Status CheckSaltBytes(absl::string_view salt);

// What Generate, Score and Classify have in common: the model, gates, priority
// and salt.
template <typename AnyRequest>
absl::Status FillCommon(const AnyRequest& request, const ServedModel& model,
                        Request* result) {
  absl::Status status = FirstError(
      {CheckRange("priority", request.priority(), -kMaxPriority, kMaxPriority),
       CheckSaltBytes(request.cache_salt())});
  if (!status.ok()) return status;
  result->model = model.index;
  result->load_id = model.load_id;
  result->priority = request.priority();
  result->cache_salt = request.cache_salt();
  if (!request.has_head_gates()) return absl::OkStatus();
  absl::StatusOr<std::vector<float>> gates =
      CheckedGates("head_gates", request.head_gates(), model);
  if (!gates.ok()) return gates.status();
  result->head_gates = *std::move(gates);
  return absl::OkStatus();
}

void AppendIds(absl::Span<const int32_t> from, std::vector<int32_t>* to);

}  // namespace headcount
