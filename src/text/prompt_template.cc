#include "text/prompt_template.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "text/token_finder.h"

namespace headcount {
namespace {

constexpr std::string_view kInput = "{input}";

// Ids of an operator's text, in which special tokens are special. `place`: of
// the text; becomes that of what follows it.
std::vector<int32_t> EncodeTrusted(std::string_view text,
                                   const Tokenizer& tokenizer,
                                   TextPlace& place) {
  std::vector<int32_t> ids;
  TokenFinder(tokenizer.specials())
      .Walk(
          text,
          [&](std::string_view plain) {
            const std::vector<int32_t> more = tokenizer.Encode(plain, place);
            ids.insert(ids.end(), more.begin(), more.end());
            place = TextPlace::kAfterText;
          },
          [&](int32_t id) {
            ids.push_back(id);
            place = TextPlace::kAfterToken;
          });
  return ids;
}

}  // namespace

absl::StatusOr<PromptTemplate> PromptTemplate::Parse(
    std::string_view text, const Tokenizer& tokenizer) {
  const size_t begin = text.find(kInput);
  if (begin == std::string_view::npos ||
      text.find(kInput, begin + 1) != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", std::string(text), "\" must name {input} exactly once"));
  }
  PromptTemplate result;
  result.before_ =
      EncodeTrusted(text.substr(0, begin), tokenizer, result.input_place_);
  result.after_ = EncodeTrusted(text.substr(begin + kInput.size()), tokenizer,
                                result.end_place_);
  return result;
}

std::vector<int32_t> PromptTemplate::Render(std::string_view input,
                                            const Tokenizer& tokenizer) const {
  std::vector<int32_t> ids = before_;
  const std::vector<int32_t> middle = tokenizer.Encode(input, input_place_);
  ids.insert(ids.end(), middle.begin(), middle.end());
  ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

}  // namespace headcount
