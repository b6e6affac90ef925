// How vocabularies with byte fallback spell a byte: "<0x0A>".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace headcount {

std::string ByteFallbackSpelling(uint8_t byte);

// The byte of a token; digits may be of either case, as in the reference.
std::optional<uint8_t> ByteOfSpelling(std::string_view spelling);

}  // namespace headcount
