#include "text/byte_level.h"

#include <array>
#include <cstddef>

#include "text/unicode.h"

namespace headcount {
namespace {

constexpr int kNoByte = -1;

constexpr bool SpeltAsItself(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) ||
         byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int, 256 + 68> byte{};  // by character, kNoByte between them
};

// Bytes that are no visible Latin-1 character get those from U+0100, in order.
constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int& byte : alphabet.byte) byte = kNoByte;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t character =
        SpeltAsItself(byte) ? static_cast<char32_t>(byte) : next++;
    alphabet.character[static_cast<size_t>(byte)] = character;
    alphabet.byte[character] = byte;
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

std::string ByteLevelSpelling(uint8_t byte) {
  const char32_t character = kAlphabet.character[byte];
  if (character < 0x80) return std::string(1, static_cast<char>(character));
  return {static_cast<char>(0xC0 | (character >> 6)),
          static_cast<char>(0x80 | (character & 0x3F))};
}

std::optional<std::string> BytesOfSpelling(std::string_view spelling) {
  std::string bytes;
  bytes.reserve(spelling.size());
  for (size_t pos = 0; pos < spelling.size();) {
    const Utf8Step step = ReadUtf8(spelling.substr(pos));
    if (step.kind != Utf8Step::Kind::kCharacter ||
        step.code_point >= kAlphabet.byte.size() ||
        kAlphabet.byte[step.code_point] == kNoByte) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(kAlphabet.byte[step.code_point]));
    pos += step.size;
  }
  return bytes;
}

}  // namespace headcount
