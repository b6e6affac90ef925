#include "server/conversation.h"

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/errors.h"
#include "server/limits.h"
#include "text/chat_template.h"

namespace headcount {
namespace {

constexpr char kMessages[] = "conversation.messages";

// Counts and bytes, before anything is copied.
absl::Status CheckSize(const v1::Conversation& conversation,
                       const ServedModel& model) {
  if (conversation.messages_size() > kMaxConversationMessages) {
    return FieldError(kMessages, absl::StrCat(conversation.messages_size(),
                                              " entries; at most ",
                                              kMaxConversationMessages));
  }
  int64_t bytes = 0;
  for (const v1::Message& message : conversation.messages()) {
    bytes += static_cast<int64_t>(message.content().size());
  }
  const int64_t most = int64_t{kMaxPromptBytesPerToken} * model.max_context;
  if (bytes <= most) return absl::OkStatus();
  return FieldError(
      kMessages,
      absl::StrCat(bytes, " bytes; at most ", most, ", which is ",
                   kMaxPromptBytesPerToken, " for each token of the context"),
      Reason::kTooLong);
}

std::optional<ChatRole> RoleOf(v1::Message::Role role) {
  switch (role) {
    case v1::Message::ROLE_SYSTEM:
      return ChatRole::kSystem;
    case v1::Message::ROLE_USER:
      return ChatRole::kUser;
    case v1::Message::ROLE_ASSISTANT:
      return ChatRole::kAssistant;
    default:
      return std::nullopt;
  }
}

absl::StatusOr<std::vector<ChatMessage>> MessagesOf(
    const v1::Conversation& conversation) {
  std::vector<ChatMessage> messages;
  for (const v1::Message& message : conversation.messages()) {
    const std::string field =
        absl::StrCat(kMessages, "[", messages.size(), "]");
    const std::optional<ChatRole> role = RoleOf(message.role());
    if (!role.has_value()) {
      return FieldError(absl::StrCat(field, ".role"),
                        absl::StrCat(static_cast<int>(message.role()),
                                     " is not system, user or assistant"));
    }
    if (*role == ChatRole::kUser && message.content().empty()) {
      return FieldError(absl::StrCat(field, ".content"), "empty");
    }
    messages.push_back({*role, message.content()});
  }
  return messages;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ConversationPrompt(
    const v1::Conversation& conversation, const ServedModel& model) {
  if (!model.chat.ok()) {
    return WithReason(absl::FailedPreconditionError(absl::StrCat(
                          "model '", model.name, "' takes no conversations: ",
                          model.chat.status().message())),
                      Reason::kNotOffered);
  }
  const absl::Status size = CheckSize(conversation, model);
  if (!size.ok()) return size;
  const absl::StatusOr<std::vector<ChatMessage>> messages =
      MessagesOf(conversation);
  if (!messages.ok()) return messages.status();
  if (const std::optional<ChatTemplate::Problem> problem =
          model.chat->Check(*messages)) {
    return FieldError(absl::StrCat("conversation.", problem->field),
                      problem->text);
  }
  return model.chat->Encode(model.chat->Render(*messages), *model.tokenizer);
}

void StopAtEndOfTurn(const v1::GenerateRequest& request,
                     const ServedModel& model, SamplingParams* sampling) {
  if (!request.has_conversation() || request.ignore_eos()) return;
  sampling->stop_ids.push_back(model.chat->end_of_turn());
}

}  // namespace headcount
