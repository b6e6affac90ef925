// The smallest parts of a text that have ids: what BPE starts from.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace headcount {

// Plain data. Byte-level tokenizers have no characters; those of SentencePiece
// have bytes for what is no character of theirs.
struct Alphabet {
  static constexpr int32_t kNoToken = -1;

  absl::flat_hash_map<char32_t, int32_t> characters;
  // Of each byte; one of kNoToken gives none, as if it were not in the text.
  std::array<int32_t, 256> bytes;

  // Appends the ids of `piece`, which is valid UTF-8: the character's where
  // there is one, else those of its bytes.
  void Spell(std::string_view piece, std::vector<int32_t>& ids) const;
};

}  // namespace headcount
