#include "text/chat_template.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace headcount {
namespace {

struct KnownTemplate {
  std::string_view sha256;
  std::string_view format;
};

// Texts that models carry, by hash; tests/data/chat has what Jinja makes of
// them.
constexpr KnownTemplate kKnownTemplates[] = {
    // SmolLM2-135M-Instruct
    {"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
     "smollm2"},
    // the default of transformers; LLaVA 34B
    {"153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3",
     "chatml"},
    // dolphin-2.5-mixtral-8x7b
    {"58c1a1f04baa7adaeaba1f90267c3d57d9396f0c1f0129bdde9e76d3c6784af7",
     "chatml"},
    // Nous-Hermes-2-Mixtral-8x7B
    {"a805e50fed68938a076b07e2e602639611b50b1ced0e50f11eb92f1ba25be4dc",
     "chatml-bos"},
    // a ChatML model with BOS
    {"f42d04ffb2e487fa9c501ab886afe8fce0822f9874a9ca4284ba57e2a686a56a",
     "chatml-bos"},
    // a ChatML model
    {"af9c0233881b083b52ff773580215222b5440ac3d0beeeca99b76329b048f8db",
     "chatml-assistant"},
    // Qwen1.5-72B-Chat
    {"7a2fad4301dcce93b13747dfd6ee5fa696dc12de86b85b86344bea8f649022b3",
     "chatml-assistant"},
    // Qwen2-0.5B-Instruct
    {"793202280c0910ab26bc6eb57c8212c2417324c6d8c4efd0d10d59092ab3e3eb",
     "qwen2"},
    // Qwen2.5-7B-Instruct
    {"cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f",
     "qwen2.5"},
    // Qwen2.5-0.5B-Instruct
    {"d5495a1e5db0611132a97e46a65dbb64a642a499421228b9c8b93229097fa9a4",
     "qwen2.5"},
    // Qwen3-0.6B
    {"87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5",
     "qwen3"},
    // Llama-2-7b-chat-hf
    {"e8d5b5a546d3f19df16a5320c614fab05bdc4edd50e850f1afd947b503ea41cf",
     "llama2"},
    // a Llama 2 model
    {"ea2472f29dbd93c3eb696795f6403228fcc4b775518869c771f83fbae5c11dbf",
     "llama2"},
    // Meta-Llama-3-8B-Instruct
    {"ba03a121d097859c7b5b9cd03af99aafe95275210d2876f642ad9929a150f122",
     "llama3"},
    // Meta-Llama-3-8B-Instruct, first version
    {"b48c47f6443892716176eb200bf4ef108f64e06ca26ed0fa8ebc0a4b3992fcb2",
     "llama3"},
    // Llama-3.1-8B-Instruct
    {"e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65",
     "llama3.1"},
    // Llama-3.2-3B-Instruct
    {"5816fce10444e03c2e9ee1ef8a4a1ea61ae7e69e438613f3b17b69d0426223a4",
     "llama3.1"},
    // Mistral-7B-Instruct-v0.1
    {"7e995b379ec01747807246483647cd99030abf331653f1119e16d7ac041a3495",
     "mistral-v0.1"},
    // Mixtral-8x7B-Instruct-v0.1, first version
    {"26a59556925c987317ce5291811ba3b7f32ec4c647c400c6cc7e3a9993007ba7",
     "mistral-v0.2"},
    // Mistral-7B-Instruct-v0.3
    {"225aaeb28812e3ea17ec7ce3963b705811ea431cfefc8cef624e0f2930f8e7e3",
     "mistral-v0.3"},
    // Mixtral-8x7B-Instruct-v0.1
    {"796853172235ab3aaa4810013ddfe2eab481bda3306dad4f700c00d436eed596",
     "mixtral-8x7b"},
    // Mixtral-8x22B-Instruct-v0.1
    {"6b1fd7807826615a3befd86aa0a9fbfce6a98acb0f4dd66726be76b078011156",
     "mixtral-8x22b"},
    // Mistral-Nemo-Instruct-2407
    {"7a29791b46bd731f43fbe4994f23c7b689daaa36c4d0294485fab19825a2ec5d",
     "mistral-nemo"},
    // TinyLlama-1.1B-Chat-v1.0; zephyr-7b-beta
    {"66291cf0045c2425a3a667cf3cbb7af2b11f09e025c02f97245323ab79119362",
     "zephyr"},
};

const ChatFormat* FormatOf(std::string_view sha256) {
  for (const KnownTemplate& known : kKnownTemplates) {
    if (known.sha256 != sha256) continue;
    for (const ChatFormat& format : ChatFormats()) {
      if (format.name == known.format) return &format;
    }
  }
  return nullptr;
}

std::string KnownNames() {
  std::string names;
  for (const ChatFormat& format : ChatFormats()) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", format.name);
  }
  return names;
}

// The special tokens without which a text would not be the format's. The first
// one ends a turn.
std::vector<std::string> NeededTokens(const ChatFormat& format,
                                      const ChatSource& source) {
  std::vector<std::string> tokens;
  for (const std::string_view token : format.specials) {
    tokens.emplace_back(token);
  }
  if (format.uses_eos) tokens.push_back(source.eos);
  if (format.uses_bos) tokens.push_back(source.bos);
  return tokens;
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Recognise(
    const ChatSource& source, const Tokenizer& tokenizer) {
  const ChatFormat* format = FormatOf(source.sha256);
  if (format == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "its chat template, of SHA-256 ", source.sha256,
        ", is not one of those that are known, which are: ", KnownNames()));
  }
  std::vector<int32_t> ids;
  for (const std::string& token : NeededTokens(*format, source)) {
    const std::optional<int32_t> id = tokenizer.SpecialId(token);
    if (!id.has_value()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "its chat template, ", format->name, ", needs the special token ",
          token.empty() ? "bos_token or eos_token" : token,
          ", which its tokenizer does not have"));
    }
    ids.push_back(*id);
  }
  ChatTemplate chat(format, source);
  chat.end_of_turn_ = ids.front();  // every format has one
  chat.specials_ = TokenFinder(tokenizer.specials());
  return chat;
}

absl::StatusOr<ChatTemplate> ChatTemplate::Load(const std::string& path,
                                                const Tokenizer& tokenizer) {
  const absl::StatusOr<ChatSource> source = ReadChatSource(path, tokenizer);
  if (!source.ok()) return source.status();
  return Recognise(*source, tokenizer);
}

std::optional<ChatTemplate::Problem> ChatTemplate::Check(
    absl::Span<const ChatMessage> messages) const {
  const auto role_field = [](size_t i) {
    return absl::StrCat("messages[", i, "].role");
  };
  if (messages.empty()) return Problem{"messages", "empty; at least one"};
  if (messages.back().role != ChatRole::kUser) {
    return Problem{role_field(messages.size() - 1),
                   "the last message is not the user's"};
  }
  if (format_->turns == ChatTurns::kAny) return std::nullopt;
  const bool system = messages.front().role == ChatRole::kSystem;
  if (system && format_->turns == ChatTurns::kAlternate) {
    return Problem{role_field(0),
                   absl::StrCat("the chat template ", format_->name,
                                " has no place for a system message")};
  }
  for (size_t i = system ? 1 : 0; i < messages.size(); ++i) {
    const bool users_turn = i % 2 == (system ? 1 : 0);
    const ChatRole expected =
        users_turn ? ChatRole::kUser : ChatRole::kAssistant;
    if (messages[i].role != expected) {
      return Problem{role_field(i),
                     absl::StrCat("in the chat template ", format_->name,
                                  " user and assistant take turns; this one "
                                  "is the ",
                                  users_turn ? "user" : "assistant", "'s")};
    }
  }
  return std::nullopt;
}

ChatPrompt ChatTemplate::Render(absl::Span<const ChatMessage> messages) const {
  CHECK(!Check(messages).has_value());
  ChatPrompt prompt;
  format_->render({.messages = messages, .bos = bos_, .eos = eos_}, prompt);
  return prompt;
}

std::vector<int32_t> ChatTemplate::Encode(const ChatPrompt& prompt,
                                          const Tokenizer& tokenizer) const {
  std::vector<int32_t> ids;
  std::string text;  // since the last special token
  TextPlace place = TextPlace::kStart;
  const auto end_text = [&] {
    if (text.empty()) return;
    const std::vector<int32_t> more =
        tokenizer.Encode(std::exchange(text, {}), place);
    ids.insert(ids.end(), more.begin(), more.end());
  };
  const auto on_special = [&](int32_t id) {
    end_text();
    ids.push_back(id);
    place = TextPlace::kAfterToken;
  };
  for (const ChatPrompt::Part& part : prompt.parts()) {
    if (part.trusted) {
      specials_.Walk(
          part.text, [&](std::string_view plain) { text += plain; },
          on_special);
    } else {
      text += part.text;
    }
  }
  end_text();
  return ids;
}

}  // namespace headcount
