// Token ids of one sequence to text, piece by piece: each piece is whole UTF-8
// characters, and the pieces put together equal Tokenizer::Decode of all ids.
//
//   Detokenizer detokenizer(&tokenizer);
//   for (int32_t id : ids) out += detokenizer.Push(id);
//   out += detokenizer.Finish();
//
// Bytes that form no character become U+FFFD as in the reference: one for each
// bad sequence in a byte-level vocabulary, one for each byte of the whole run
// of byte tokens in one with byte fallback. Such a run therefore waits for its
// end, which is the next token of another kind.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace headcount {

// Not thread-safe. The tokenizer outlives it.
class Detokenizer {
 public:
  // Special tokens give no text, unless they are to be kept.
  explicit Detokenizer(const Tokenizer* tokenizer, bool keep_special = false)
      : tokenizer_(tokenizer),
        keep_special_(keep_special),
        strip_space_(tokenizer->strips_leading_space()) {}

  // Text that is certain after `id`.
  std::string Push(int32_t id);
  // What was waiting.
  std::string Finish();

 private:
  // Ends the run of fallback bytes.
  std::string TakeRun();
  // Takes the space off the start of the whole text.
  std::string Strip(std::string text);

  const Tokenizer* tokenizer_;
  bool keep_special_;
  bool strip_space_;     // until there was text
  std::string run_;      // fallback bytes
  std::string pending_;  // the start of a character, at most 3 bytes
};

}  // namespace headcount
