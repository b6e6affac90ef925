#include "text/token_finder.h"

#include <algorithm>

namespace headcount {

TokenFinder::TokenFinder(
    absl::Span<const std::pair<std::string, int32_t>> tokens)
    : empty_(tokens.empty()) {
  for (const auto& token : tokens) {
    tokens_[static_cast<unsigned char>(token.first[0])].push_back(token);
  }
  for (auto& same_first_byte : tokens_) {
    std::stable_sort(same_first_byte.begin(), same_first_byte.end(),
                     [](const auto& a, const auto& b) {
                       return a.first.size() > b.first.size();
                     });
  }
}

std::optional<TokenFinder::Match> TokenFinder::Find(std::string_view text,
                                                    size_t pos) const {
  if (empty_) return std::nullopt;
  for (; pos < text.size(); ++pos) {
    for (const auto& [spelling, id] :
         tokens_[static_cast<unsigned char>(text[pos])]) {
      if (text.substr(pos).starts_with(spelling)) {
        return Match{pos, spelling.size(), id};
      }
    }
  }
  return std::nullopt;
}

}  // namespace headcount
