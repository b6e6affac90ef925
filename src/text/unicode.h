// UTF-8, and what tokenizers ask about Unicode. The tables are utf8proc's
// (Unicode 15.0 in version 2.8).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace headcount {

inline constexpr std::string_view kReplacementCharacter = "\uFFFD";

enum class CharClass {
  kLetter,  // \p{L}
  kNumber,  // \p{N}
  kSpace,   // \s: the property White_Space, which has no U+180E and no U+200B
  kOther,
};
CharClass ClassOf(char32_t code_point);

// The first step of reading some bytes as UTF-8.
struct Utf8Step {
  enum class Kind {
    kCharacter,
    kInvalid,     // to be replaced as a whole by one U+FFFD
    kIncomplete,  // the bytes end inside a character
  };
  Kind kind;
  char32_t code_point;  // of a character
  size_t size;          // bytes read, at least 1
};

// `bytes` is not empty. Invalid are maximal subparts of ill-formed sequences
// (Unicode 15.0, section 3.9, table 3-8), as in Rust and in browsers.
Utf8Step ReadUtf8(std::string_view bytes);

// Appends `bytes` with U+FFFD for what is invalid. The start of a character at
// their end is left out: returns its size, at most 3.
[[nodiscard]] size_t AppendAsUtf8(std::string_view bytes, std::string* out);

// The same for bytes that nothing follows: their end is replaced too.
std::string ToUtf8(std::string_view bytes);

// Normalization Form C of valid UTF-8, in time O(n log n) whatever the text
// (utf8proc_NFC is quadratic in the length of a run of combining marks).
std::string NormalizeNfc(std::string_view text);

}  // namespace headcount
