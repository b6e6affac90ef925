// Text from a file, made fit for an error message.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace headcount {

// The first `max_bytes` of `text`, with "\x1b" for a byte outside printable
// ASCII and "..." for what is left out.
inline std::string Printable(std::string_view text, size_t max_bytes) {
  std::string printable;
  for (char c : text.substr(0, max_bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (absl::ascii_isprint(byte)) {
      printable.push_back(c);
    } else {
      absl::StrAppend(&printable, "\\x", absl::Hex(byte, absl::kZeroPad2));
    }
  }
  if (text.size() > max_bytes) printable += "...";
  return printable;
}

// For names.
inline std::string Quoted(std::string_view text) {
  return absl::StrCat("'", Printable(text, 80), "'");
}

}  // namespace headcount
