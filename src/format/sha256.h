// SHA-256 (FIPS 180-4) as people write it.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace headcount {

// 64 lower-case hex digits. Internal if OpenSSL cannot do it.
absl::StatusOr<std::string> Sha256Hex(std::string_view bytes);

}  // namespace headcount
