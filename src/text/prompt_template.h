// An operator's prompt template, such as "<|bos|>{input}<|label|>": text,
// special tokens (which are special here) and one place for the input (in which
// they are not).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "text/tokenizer.h"

namespace headcount {

// Immutable, copyable, thread-safe.
class PromptTemplate {
 public:
  // InvalidArgument unless `text` names {input} exactly once.
  static absl::StatusOr<PromptTemplate> Parse(std::string_view text,
                                              const Tokenizer& tokenizer);

  // The ids of the template around those of `input`. Text of the template that
  // touches the input is tokenised apart from it.
  std::vector<int32_t> Render(std::string_view input,
                              const Tokenizer& tokenizer) const;

  // Where a text stands that follows the prompt.
  TextPlace end_place() const { return end_place_; }

  // Tokens that the template adds to every input.
  int overhead() const {
    return static_cast<int>(before_.size() + after_.size());
  }

 private:
  std::vector<int32_t> before_;
  TextPlace input_place_ = TextPlace::kStart;
  std::vector<int32_t> after_;
  TextPlace end_place_ = TextPlace::kAfterText;
};

}  // namespace headcount
