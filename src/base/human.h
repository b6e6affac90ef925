// Sizes and durations as people write them, for flags, YAML and tables.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace headcount {

// "4096", "64MiB", "24GiB" (powers of 1024) or "1.5GB" (powers of 1000).
absl::StatusOr<int64_t> ParseByteSize(std::string_view text);

// "300s", "1.5m", "250ms". A bare number is an error: it names no unit.
absl::StatusOr<absl::Duration> ParseDuration(std::string_view text);

// 1536 -> "1.5 KiB". Never more than four significant digits.
std::string FormatByteSize(int64_t bytes);

// 4192 -> "4,192".
std::string FormatCount(int64_t count);

}  // namespace headcount
