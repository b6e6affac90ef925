// Token ids of one sequence to text, piece by piece: each piece is whole UTF-8
// characters, and the pieces put together equal Tokenizer::Decode of all ids.
//
//   Detokenizer detokenizer(&tokenizer);
//   for (int32_t id : ids) out += detokenizer.Push(id);
//   out += detokenizer.Finish();
#pragma once

#include <cstdint>
#include <string>

#include "text/tokenizer.h"

namespace headcount {

// Not thread-safe. The tokenizer outlives it.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  // Text that is certain after `id`; a character whose last bytes are still to
  // come waits. Special tokens give no text.
  std::string Push(int32_t id);
  // What was waiting, U+FFFD for bytes that can no longer become a character.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;  // the start of a character, at most 3 bytes
};

}  // namespace headcount
