#include "server/validation.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "server/conversation.h"
#include "server/errors.h"
#include "server/field_checks.h"
#include "server/limits.h"
#include "server/sampling_validation.h"

namespace headcount {
namespace {

using Ids = std::vector<int32_t>;

const char* PromptField(const v1::GenerateRequest& request) {
  if (request.has_conversation()) return "conversation";
  return request.has_text() ? "text" : "tokens.ids";
}

absl::StatusOr<Ids> GeneratePrompt(const v1::GenerateRequest& request,
                                   const ServedModel& model) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kTokens:
      if (request.tokens().ids().empty()) {
        return FieldError("tokens.ids", "empty; at least one token");
      }
      return CheckedIds("tokens.ids", request.tokens(), model);
    case v1::GenerateRequest::kText: {
      if (request.text().empty()) return FieldError("text", "empty");
      absl::StatusOr<Ids> ids =
          EncodedText("text", request.text(), TextPlace::kStart, model);
      if (!ids.ok()) return ids;
      Ids prompt;
      AppendIds(model.tokenizer->prefix(), &prompt);
      AppendIds(*ids, &prompt);
      AppendIds(model.tokenizer->suffix(), &prompt);
      if (prompt.empty()) return FieldError("text", "has no tokens");
      return prompt;
    }
    case v1::GenerateRequest::kConversation:
      return ConversationPrompt(request.conversation(), model);
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return FieldError("prompt", "missing; set text, tokens or conversation");
}

}  // namespace

absl::StatusOr<Request> ToEngineRequest(const v1::GenerateRequest& request,
                                        const ServedModel& model) {
  absl::StatusOr<SamplingParams> sampling = ToSamplingParams(request, model);
  if (!sampling.ok()) return sampling.status();
  absl::StatusOr<Ids> prompt = GeneratePrompt(request, model);
  if (!prompt.ok()) return prompt.status();
  const auto tokens = static_cast<int64_t>(prompt->size());
  const int64_t left = model.max_context - tokens;
  if (left < 1) {
    return TooLong(PromptField(request), tokens, model);
  }
  if (sampling->max_tokens > left) {
    return FieldError(
        request.has_max_tokens() ? "max_tokens" : "choices",
        absl::StrCat(sampling->max_tokens, " after a prompt of ", tokens,
                     " tokens; the context of '", model.name, "' is ",
                     model.max_context, ", so at most ", left),
        Reason::kTooLong);
  }
  Request result;
  const absl::Status common = FillCommon(request, model, &result);
  if (!common.ok()) return common;
  result.prompt = *std::move(prompt);
  result.sampling = *std::move(sampling);
  StopAtEndOfTurn(request, model, &result.sampling);
  if (result.sampling.max_tokens == 0) {
    result.sampling.max_tokens = static_cast<int32_t>(left);
  }
  return result;
}

absl::Status CheckTokenizeRequest(const v1::TokenizeRequest& request) {
  if (request.text().size() <= kMaxTokenizeBytes) return absl::OkStatus();
  return FieldError("text",
                    absl::StrCat(request.text().size(), " bytes; at most ",
                                 kMaxTokenizeBytes));
}

absl::Status CheckDetokenizeRequest(const v1::DetokenizeRequest& request,
                                    const ServedModel& model) {
  return FirstError({CheckCount("ids", request.ids_size(), kMaxDetokenizeIds),
                     CheckIds("ids", request.ids(), model.vocab)});
}

}  // namespace headcount
