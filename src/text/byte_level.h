// The alphabet of byte-level BPE files: each byte is written as one printable
// character, as in GPT-2 (openai/gpt-2, encoder.py, bytes_to_unicode).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace headcount {

// How `byte` is written: "a" for 'a', "\u0120" for ' '.
std::string ByteLevelSpelling(uint8_t byte);

// The bytes that `spelling` stands for; nothing if a character of it is not in
// the alphabet.
std::optional<std::string> BytesOfSpelling(std::string_view spelling);

}  // namespace headcount
