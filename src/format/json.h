// JSON from files that nobody vouches for: nesting and size are limited before
// a tree exists, and no exception leaves this folder.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace headcount {

inline constexpr int kMaxJsonDepth = 64;
inline constexpr int64_t kMaxJsonBytes = int64_t{64} << 20;

// InvalidArgument when `text` is not JSON (RFC 8259; with the position), nests
// deeper than kMaxJsonDepth or names a key of an object twice (with the key).
// `what` names the source in the error, such as "config.json".
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text,
                                         std::string_view what);

// Reads and parses a file of at most kMaxJsonBytes. NotFound when it is absent.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path);

}  // namespace headcount
