#include "text/token_finder.h"

namespace headcount {
namespace {

uint64_t EdgeKey(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<unsigned char>(byte);
}

}  // namespace

TokenFinder::TokenFinder(
    absl::Span<const std::pair<std::string, int32_t>> tokens) {
  for (const auto& [spelling, id] : tokens) {
    uint32_t node = kRoot;
    for (const char byte : spelling) {
      const auto next = static_cast<uint32_t>(edges_.size() + 1);
      node = edges_.try_emplace(EdgeKey(node, byte), next).first->second;
    }
    ids_.try_emplace(node, id);
  }
}

std::optional<TokenFinder::Match> TokenFinder::MatchAt(std::string_view text,
                                                       size_t pos) const {
  std::optional<Match> longest;
  uint32_t node = kRoot;
  for (size_t end = pos; end < text.size();) {
    const auto edge = edges_.find(EdgeKey(node, text[end]));
    if (edge == edges_.end()) break;
    node = edge->second;
    ++end;
    if (const auto found = ids_.find(node); found != ids_.end()) {
      longest = Match{pos, end - pos, found->second};
    }
  }
  return longest;
}

std::optional<TokenFinder::Match> TokenFinder::Find(std::string_view text,
                                                    size_t pos) const {
  if (ids_.empty()) return std::nullopt;
  for (; pos < text.size(); ++pos) {
    if (const std::optional<Match> match = MatchAt(text, pos)) return match;
  }
  return std::nullopt;
}

}  // namespace headcount
