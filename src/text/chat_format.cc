#include "text/chat_format.h"

#include "text/unicode.h"

namespace headcount {
namespace {

using Chat = ChatFormat::Chat;

std::string_view RoleName(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem:
      return "system";
    case ChatRole::kUser:
      return "user";
    case ChatRole::kAssistant:
      return "assistant";
  }
  return "";
}

// What Python's str.strip() takes off, which is what Jinja's trim does.
bool IsPythonSpace(std::string_view text) {
  const Utf8Step step = ReadUtf8(text);
  if (step.kind != Utf8Step::Kind::kCharacter) return false;
  return ClassOf(step.code_point) == CharClass::kSpace ||
         (step.code_point >= 0x1C && step.code_point <= 0x1F);
}

std::string_view TrimStart(std::string_view text) {
  while (!text.empty() && IsPythonSpace(text)) {
    text.remove_prefix(ReadUtf8(text).size);
  }
  return text;
}

std::string_view TrimEnd(std::string_view text) {
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (text[last] & 0xC0) == 0x80) --last;
    if (!IsPythonSpace(text.substr(last))) break;
    text = text.substr(0, last);
  }
  return text;
}

std::string_view Trim(std::string_view text) {
  return TrimEnd(TrimStart(text));
}

std::string_view TrimNewlines(std::string_view text) {
  const size_t begin = text.find_first_not_of('\n');
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of('\n') + 1 - begin);
}

bool StartsWithSystem(const Chat& chat) {
  return chat.messages.front().role == ChatRole::kSystem;
}

// The system message, or null, and what follows it.
const std::string* TakeSystem(Chat& chat) {
  if (!StartsWithSystem(chat)) return nullptr;
  const std::string* system = &chat.messages.front().content;
  chat.messages.remove_prefix(1);
  return system;
}

void ChatMlMessage(std::string_view role, std::string_view content,
                   ChatPrompt& prompt) {
  prompt.Format("<|im_start|>").Format(role).Format("\n");
  prompt.Words(content).Format("<|im_end|>\n");
}

// `system` is said when the conversation has no such message at first.
void ChatMl(const Chat& chat, std::string_view system, ChatPrompt& prompt) {
  if (!system.empty() && !StartsWithSystem(chat)) {
    prompt.Format("<|im_start|>system\n").Format(system);
    prompt.Format("<|im_end|>\n");
  }
  for (const ChatMessage& message : chat.messages) {
    ChatMlMessage(RoleName(message.role), message.content, prompt);
  }
  prompt.Format("<|im_start|>assistant\n");
}

// The first user message of the last exchange. (An answer of a tool is none.)
size_t LastQuery(absl::Span<const ChatMessage> messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string_view content = messages[i].content;
    const bool tool = content.starts_with("<tool_response>") &&
                      content.ends_with("</tool_response>");
    if (messages[i].role == ChatRole::kUser && !tool) return i;
  }
  return messages.size() - 1;
}

// Qwen3 forgets what it thought before the last question.
void Qwen3Answer(std::string_view content, bool keep_thoughts,
                 ChatPrompt& prompt) {
  constexpr std::string_view kBegin = "<think>";
  constexpr std::string_view kEnd = "</think>";
  std::string_view thoughts;
  if (const size_t first = content.find(kEnd); first != content.npos) {
    thoughts = content.substr(0, first);
    const size_t begin = thoughts.rfind(kBegin);
    if (begin != thoughts.npos) thoughts.remove_prefix(begin + kBegin.size());
    thoughts = TrimNewlines(thoughts);
    content.remove_prefix(content.rfind(kEnd) + kEnd.size());
    const size_t text = content.find_first_not_of('\n');
    content.remove_prefix(text == content.npos ? content.size() : text);
  }
  if (!keep_thoughts || thoughts.empty()) {
    ChatMlMessage("assistant", content, prompt);
    return;
  }
  prompt.Format("<|im_start|>assistant\n<think>\n").Words(thoughts);
  prompt.Format("\n</think>\n\n").Words(content).Format("<|im_end|>\n");
}

void Qwen3(const Chat& chat, ChatPrompt& prompt) {
  const size_t last_query = LastQuery(chat.messages);
  for (size_t i = 0; i < chat.messages.size(); ++i) {
    const ChatMessage& message = chat.messages[i];
    if (message.role == ChatRole::kAssistant) {
      Qwen3Answer(message.content, /*keep_thoughts=*/i > last_query, prompt);
    } else {
      ChatMlMessage(RoleName(message.role), message.content, prompt);
    }
  }
  prompt.Format("<|im_start|>assistant\n");
}

void Llama2(const Chat& whole, ChatPrompt& prompt) {
  Chat chat = whole;
  const std::string* system = TakeSystem(chat);
  for (const ChatMessage& message : chat.messages) {
    if (message.role == ChatRole::kAssistant) {
      prompt.Format(" ").Words(Trim(message.content));
      prompt.Format(" ").Format(chat.eos);
      continue;
    }
    prompt.Format(chat.bos).Format("[INST] ");
    if (system != nullptr) {
      // Both together are trimmed.
      const std::string_view content = TrimEnd(message.content);
      prompt.Format("<<SYS>>\n").Words(*system).Format("\n<</SYS>>");
      if (!content.empty()) prompt.Format("\n\n").Words(content);
      system = nullptr;
    } else {
      prompt.Words(Trim(message.content));
    }
    prompt.Format(" [/INST]");
  }
}

void Llama3Message(std::string_view role, std::string_view content,
                   ChatPrompt& prompt) {
  prompt.Format("<|start_header_id|>").Format(role);
  prompt.Format("<|end_header_id|>\n\n").Words(Trim(content));
  prompt.Format("<|eot_id|>");
}

void Llama3(const Chat& chat, ChatPrompt& prompt) {
  prompt.Format(chat.bos);
  for (const ChatMessage& message : chat.messages) {
    Llama3Message(RoleName(message.role), message.content, prompt);
  }
  prompt.Format("<|start_header_id|>assistant<|end_header_id|>\n\n");
}

// The date is the template's own where none is given, so that a conversation is
// the same prompt tomorrow.
void Llama31(const Chat& whole, ChatPrompt& prompt) {
  Chat chat = whole;
  const std::string* system = TakeSystem(chat);
  prompt.Format(chat.bos).Format(
      "<|start_header_id|>system<|end_header_id|>\n\n"
      "Cutting Knowledge Date: December 2023\n"
      "Today Date: 26 Jul 2024\n\n");
  if (system != nullptr) prompt.Words(Trim(*system));
  prompt.Format("<|eot_id|>");
  for (const ChatMessage& message : chat.messages) {
    Llama3Message(RoleName(message.role), message.content, prompt);
  }
  prompt.Format("<|start_header_id|>assistant<|end_header_id|>\n\n");
}

// What goes around the messages of Mistral's formats.
struct MistralStyle {
  std::string_view before_user = "";
  std::string_view after_user = "";
  std::string_view before_answer = "";
  std::string_view before_eos = "";
  std::string_view after_eos = "";
  bool system_in_last = false;  // else in the first user message
};

void Mistral(Chat chat, const MistralStyle& style, ChatPrompt& prompt) {
  const std::string* system = TakeSystem(chat);
  prompt.Format(chat.bos);
  for (size_t i = 0; i < chat.messages.size(); ++i) {
    const ChatMessage& message = chat.messages[i];
    if (message.role == ChatRole::kAssistant) {
      prompt.Format(style.before_answer).Words(message.content);
      prompt.Format(style.before_eos).Format(chat.eos).Format(style.after_eos);
      continue;
    }
    prompt.Format(style.before_user);
    const bool here =
        style.system_in_last ? i + 1 == chat.messages.size() : i == 0;
    if (system != nullptr && here) prompt.Words(*system).Format("\n\n");
    prompt.Words(message.content).Format(style.after_user);
  }
}

// Its specials are plain text but for eos.
void Zephyr(const Chat& chat, ChatPrompt& prompt) {
  for (const ChatMessage& message : chat.messages) {
    prompt.Format("<|").Format(RoleName(message.role)).Format("|>\n");
    prompt.Words(message.content).Format(chat.eos).Format("\n");
  }
  prompt.Format("<|assistant|>\n");
}

ChatFormat ChatMlFormat(const char* name,
                        void (*render)(const Chat&, ChatPrompt&)) {
  return {.name = name,
          .turns = ChatTurns::kAny,
          .uses_bos = false,
          .uses_eos = false,
          .specials = {"<|im_end|>", "<|im_start|>"},
          .render = render};
}

ChatFormat Llama3Format(const char* name,
                        void (*render)(const Chat&, ChatPrompt&)) {
  return {
      .name = name,
      .turns = ChatTurns::kAny,
      .uses_bos = true,
      .uses_eos = false,
      .specials = {"<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"},
      .render = render};
}

ChatFormat InstFormat(const char* name, ChatTurns turns,
                      void (*render)(const Chat&, ChatPrompt&)) {
  return {.name = name,
          .turns = turns,
          .uses_bos = true,
          .uses_eos = true,
          .specials = {},
          .render = render};
}

std::vector<ChatFormat> ChatMlFormats() {
  return {
      ChatMlFormat("chatml",
                   [](const Chat& chat, ChatPrompt& prompt) {
                     ChatMl(chat, "", prompt);
                   }),
      {.name = "chatml-bos",
       .turns = ChatTurns::kAny,
       .uses_bos = true,
       .uses_eos = false,
       .specials = {"<|im_end|>", "<|im_start|>"},
       .render =
           [](const Chat& chat, ChatPrompt& prompt) {
             prompt.Format(chat.bos);
             ChatMl(chat, "", prompt);
           }},
      ChatMlFormat("chatml-assistant",
                   [](const Chat& chat, ChatPrompt& prompt) {
                     ChatMl(chat, "You are a helpful assistant", prompt);
                   }),
      ChatMlFormat("smollm2",
                   [](const Chat& chat, ChatPrompt& prompt) {
                     ChatMl(chat,
                            "You are a helpful AI assistant named SmolLM, "
                            "trained by Hugging Face",
                            prompt);
                   }),
      ChatMlFormat("qwen2",
                   [](const Chat& chat, ChatPrompt& prompt) {
                     ChatMl(chat, "You are a helpful assistant.", prompt);
                   }),
      ChatMlFormat("qwen2.5",
                   [](const Chat& chat, ChatPrompt& prompt) {
                     ChatMl(chat,
                            "You are Qwen, created by Alibaba Cloud. You are "
                            "a helpful assistant.",
                            prompt);
                   }),
      ChatMlFormat("qwen3", Qwen3),
  };
}

std::vector<ChatFormat> LlamaFormats() {
  return {
      InstFormat("llama2", ChatTurns::kSystemAtFirst, Llama2),
      Llama3Format("llama3", Llama3),
      Llama3Format("llama3.1", Llama31),
      {.name = "zephyr",
       .turns = ChatTurns::kAny,
       .uses_bos = false,
       .uses_eos = true,
       .specials = {},
       .render = Zephyr},
  };
}

std::vector<ChatFormat> MistralFormats() {
  return {
      InstFormat("mistral-v0.1", ChatTurns::kAlternate,
                 [](const Chat& chat, ChatPrompt& prompt) {
                   Mistral(chat,
                           {.before_user = "[INST] ",
                            .after_user = " [/INST]",
                            .after_eos = " "},
                           prompt);
                 }),
      InstFormat("mistral-v0.2", ChatTurns::kAlternate,
                 [](const Chat& chat, ChatPrompt& prompt) {
                   Mistral(chat,
                           {.before_user = "[INST] ", .after_user = " [/INST]"},
                           prompt);
                 }),
      InstFormat("mistral-v0.3", ChatTurns::kAlternate,
                 [](const Chat& chat, ChatPrompt& prompt) {
                   Mistral(chat,
                           {.before_user = " [INST] ",
                            .after_user = " [/INST]",
                            .before_answer = " ",
                            .before_eos = " "},
                           prompt);
                 }),
      InstFormat("mixtral-8x7b", ChatTurns::kSystemAtFirst,
                 [](const Chat& chat, ChatPrompt& prompt) {
                   Mistral(chat,
                           {.before_user = " [INST] ",
                            .after_user = " [/INST]",
                            .before_answer = " "},
                           prompt);
                 }),
      InstFormat("mixtral-8x22b", ChatTurns::kSystemAtFirst,
                 [](const Chat& chat, ChatPrompt& prompt) {
                   Mistral(chat,
                           {.before_user = "[INST] ",
                            .after_user = "[/INST]",
                            .before_answer = " ",
                            .system_in_last = true},
                           prompt);
                 }),
      InstFormat("mistral-nemo", ChatTurns::kSystemAtFirst,
                 [](const Chat& chat, ChatPrompt& prompt) {
                   Mistral(chat,
                           {.before_user = "[INST]",
                            .after_user = "[/INST]",
                            .system_in_last = true},
                           prompt);
                 }),
  };
}

}  // namespace

absl::Span<const ChatFormat> ChatFormats() {
  static const auto* const kFormats = [] {
    auto* formats = new std::vector<ChatFormat>(ChatMlFormats());
    for (auto more : {LlamaFormats(), MistralFormats()}) {
      formats->insert(formats->end(), more.begin(), more.end());
    }
    return formats;
  }();
  return *kFormats;
}

}  // namespace headcount
