#include "base/human.h"

#include <array>
#include <cmath>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace headcount {
namespace {

struct Unit {
  absl::string_view name;
  double factor;
};

// Longest names first, so that "MiB" is not read as "B".
constexpr std::array kByteUnits = {
    Unit{"TiB", 1024.0 * 1024 * 1024 * 1024},
    Unit{"GiB", 1024.0 * 1024 * 1024},
    Unit{"MiB", 1024.0 * 1024},
    Unit{"KiB", 1024.0},
    Unit{"TB", 1e12},
    Unit{"GB", 1e9},
    Unit{"MB", 1e6},
    Unit{"KB", 1e3},
    Unit{"kB", 1e3},
    Unit{"B", 1.0},
};

}  // namespace

absl::StatusOr<int64_t> ParseByteSize(std::string_view input) {
  // Debian's Abseil has a string_view of its own.
  const absl::string_view text(input.data(), input.size());
  absl::string_view number = absl::StripAsciiWhitespace(text);
  double factor = 1.0;
  for (const Unit& unit : kByteUnits) {
    if (!absl::EndsWith(number, unit.name)) continue;
    factor = unit.factor;
    number.remove_suffix(unit.name.size());
    break;
  }
  double value = 0;
  if (!absl::SimpleAtod(absl::StripAsciiWhitespace(number), &value) ||
      !std::isfinite(value) || value < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is not a size; write for example 512MiB or 24GiB"));
  }
  const double bytes = value * factor;
  if (bytes >= static_cast<double>(std::numeric_limits<int64_t>::max())) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is too large a size"));
  }
  return static_cast<int64_t>(bytes);
}

absl::StatusOr<absl::Duration> ParseDuration(std::string_view input) {
  const absl::string_view text(input.data(), input.size());
  absl::Duration duration;
  if (!absl::ParseDuration(absl::StripAsciiWhitespace(text), &duration) ||
      duration < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", text, "' is not a duration; write for example 30s or 250ms"));
  }
  return duration;
}

std::string FormatByteSize(int64_t bytes) {
  constexpr std::array<std::string_view, 5> kNames = {"B", "KiB", "MiB", "GiB",
                                                      "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (std::abs(value) >= 1024 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return absl::StrCat(bytes, " B");
  const int decimals = value < 100 ? 1 : 0;
  return absl::StrFormat("%.*f %s", decimals, value, kNames[unit]);
}

std::string FormatCount(int64_t count) {
  std::string digits = absl::StrCat(count);
  const size_t start = count < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > start + 3;) {
    i -= 3;
    digits.insert(i, 1, ',');
  }
  return digits;
}

}  // namespace headcount
