// Finds tokens that stand in a text literally, before any pre-tokenizing: added
// tokens, and the special tokens of an operator's template.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"

namespace headcount {

// Immutable; thread-safe.
class TokenFinder {
 public:
  TokenFinder() = default;
  // Spellings, none empty, and their ids. Of equal spellings the first holds.
  explicit TokenFinder(
      absl::Span<const std::pair<std::string, int32_t>> tokens);

  struct Match {
    size_t begin;
    size_t size;
    int32_t id;
  };
  // The first token in `text` at or after `pos`, the longest of those that
  // begin there.
  std::optional<Match> Find(std::string_view text, size_t pos) const;

  // Walks the whole text: on_text(std::string_view) for what lies between
  // tokens, which is not empty, on_token(int32_t) for each token.
  template <typename OnText, typename OnToken>
  void Walk(std::string_view text, OnText on_text, OnToken on_token) const {
    size_t pos = 0;
    while (const std::optional<Match> match = Find(text, pos)) {
      if (match->begin > pos) on_text(text.substr(pos, match->begin - pos));
      on_token(match->id);
      pos = match->begin + match->size;
    }
    if (pos < text.size()) on_text(text.substr(pos));
  }

 private:
  static constexpr uint32_t kRoot = 0;

  // The longest token that begins at `pos`.
  std::optional<Match> MatchAt(std::string_view text, size_t pos) const;

  // A tree of bytes: thousands of tokens may begin alike.
  absl::flat_hash_map<uint64_t, uint32_t> edges_;  // by node << 8 | byte
  absl::flat_hash_map<uint32_t, int32_t> ids_;     // by the node of the end
};

}  // namespace headcount
