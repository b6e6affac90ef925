// What a tokenizer does to a text before it cuts it into pieces.
#pragma once

#include <string>
#include <string_view>

#include "text/text_place.h"

namespace headcount {

// What stands for a space in the tokens of SentencePiece.
inline constexpr std::string_view kSpaceMark = "\u2581";

std::string MarkSpaces(std::string_view text);
std::string UnmarkSpaces(std::string_view text);

// Plain data: the `normalizer` of a tokenizer.json.
struct Normalizer {
  bool nfc = false;
  bool prepend_mark = false;  // whatever the text begins with
  bool mark_spaces = false;

  // `text` is valid UTF-8.
  std::string Apply(std::string_view text, TextPlace place) const;
};

}  // namespace headcount
