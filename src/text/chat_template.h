// Conversations as prompts. A model gives its format as a Jinja template, which
// is a program; it is not run but recognised by the SHA-256 of its text, and
// its format is done by code (chat_format.h).
//
//   absl::StatusOr<ChatTemplate> chat = ChatTemplate::Load(path, tokenizer);
//   if (!chat->Check(messages)) ids = chat->Render(messages, tokenizer);
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "text/chat_format.h"
#include "text/chat_source.h"
#include "text/token_finder.h"
#include "text/tokenizer.h"

namespace headcount {

// Immutable, copyable, thread-safe.
class ChatTemplate {
 public:
  // FailedPrecondition for a template that is not known, with its hash and the
  // known ones, and for one whose special tokens the tokenizer lacks.
  static absl::StatusOr<ChatTemplate> Recognise(const ChatSource& source,
                                                const Tokenizer& tokenizer);
  // ReadChatSource and Recognise.
  static absl::StatusOr<ChatTemplate> Load(const std::string& path,
                                           const Tokenizer& tokenizer);

  // Such as "llama3".
  std::string_view name() const { return format_->name; }
  // The token with which the assistant ends an answer.
  int32_t end_of_turn() const { return end_of_turn_; }

  struct Problem {
    std::string field;  // such as "messages[3].role"
    std::string text;
  };
  // What keeps the messages from being a prompt. The last one is the user's.
  std::optional<Problem> Check(absl::Span<const ChatMessage> messages) const;

  // The prompt of messages that Check accepts, up to the place where the
  // assistant speaks. No tokens of the tokenizer's own go around it.
  ChatPrompt Render(absl::Span<const ChatMessage> messages) const;
  // Its ids: text that touches text is tokenised with it.
  std::vector<int32_t> Encode(const ChatPrompt& prompt,
                              const Tokenizer& tokenizer) const;

 private:
  ChatTemplate(const ChatFormat* format, const ChatSource& source)
      : format_(format), bos_(source.bos), eos_(source.eos) {}

  const ChatFormat* format_;
  std::string bos_;
  std::string eos_;
  int32_t end_of_turn_ = 0;
  TokenFinder specials_;  // of the tokenizer
};

}  // namespace headcount
