#include "text/detokenizer.h"

#include <utility>

#include "text/unicode.h"

namespace headcount {

std::string Detokenizer::Push(int32_t id) {
  if (tokenizer_->is_special(id)) return {};
  const std::string bytes =
      std::exchange(pending_, {}).append(tokenizer_->TokenBytes(id));
  std::string text;
  const size_t waiting = AppendAsUtf8(bytes, &text);
  pending_ = bytes.substr(bytes.size() - waiting);
  return text;
}

std::string Detokenizer::Finish() {
  return ToUtf8(std::exchange(pending_, {}));
}

}  // namespace headcount
