#include "text/byte_fallback.h"

#include <charconv>
#include <system_error>

#include "absl/strings/str_format.h"

namespace headcount {

std::string ByteFallbackSpelling(uint8_t byte) {
  return absl::StrFormat("<0x%02X>", byte);
}

std::optional<uint8_t> ByteOfSpelling(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") ||
      !spelling.ends_with('>')) {
    return std::nullopt;
  }
  const std::string_view digits = spelling.substr(3, 2);
  uint8_t byte = 0;
  const auto [end, error] =
      std::from_chars(digits.begin(), digits.end(), byte, /*base=*/16);
  if (error != std::errc() || end != digits.end()) return std::nullopt;
  return byte;
}

}  // namespace headcount
