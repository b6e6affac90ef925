#include "text/detokenizer.h"

#include <utility>

#include "text/unicode.h"

namespace headcount {

std::string Detokenizer::TakeRun() {
  std::string run = std::exchange(run_, {});
  if (ToUtf8(run) == run) return run;
  std::string text;
  for (size_t i = 0; i < run.size(); ++i) text += kReplacementCharacter;
  return text;
}

std::string Detokenizer::Strip(std::string text) {
  if (text.empty() || !std::exchange(strip_space_, false)) return text;
  if (text.front() == ' ') text.erase(0, 1);
  return text;
}

std::string Detokenizer::Push(int32_t id) {
  if (tokenizer_->is_special(id) && !keep_special_) return {};
  if (tokenizer_->is_fallback_byte(id)) {
    run_ += tokenizer_->TokenBytes(id);
    return {};
  }
  const std::string bytes = std::exchange(pending_, {}) +
                            TakeRun().append(tokenizer_->TokenBytes(id));
  std::string text;
  const size_t waiting = AppendAsUtf8(bytes, &text);
  pending_ = bytes.substr(bytes.size() - waiting);
  return Strip(std::move(text));
}

std::string Detokenizer::Finish() {
  return Strip(TakeRun() + ToUtf8(std::exchange(pending_, {})));
}

}  // namespace headcount
