// The formats of conversations that chat models were trained on, as code.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

namespace headcount {

enum class ChatRole { kSystem, kUser, kAssistant };

struct ChatMessage {
  ChatRole role;
  std::string content;
};

// A prompt in parts: those of the format, in which special tokens are special,
// and those of people, in which they are plain text.
class ChatPrompt {
 public:
  struct Part {
    bool trusted;
    std::string text;
  };

  ChatPrompt& Format(std::string_view text) { return Add(text, true); }
  ChatPrompt& Words(std::string_view text) { return Add(text, false); }

  const std::vector<Part>& parts() const { return parts_; }

 private:
  ChatPrompt& Add(std::string_view text, bool trusted) {
    parts_.push_back({trusted, std::string(text)});
    return *this;
  }

  std::vector<Part> parts_;
};

// Who may speak when.
enum class ChatTurns {
  kAny,
  kAlternate,     // user, assistant, user, ...
  kSystemAtFirst  // perhaps a system message, then as above
};

// One format. Every template of a model that gives the same prompts for
// messages without tools is one.
struct ChatFormat {
  // A conversation that `turns` allows and whose last message is the user's,
  // with the tokens that begin and end a text.
  struct Chat {
    absl::Span<const ChatMessage> messages;
    std::string_view bos;
    std::string_view eos;
  };

  const char* name;
  ChatTurns turns;
  bool uses_bos;
  bool uses_eos;
  // Its special tokens, the first of which ends an answer; none: eos does.
  std::vector<std::string_view> specials;
  // Up to the place where the assistant speaks.
  void (*render)(const Chat& chat, ChatPrompt& prompt);
};

// All formats.
absl::Span<const ChatFormat> ChatFormats();

}  // namespace headcount
