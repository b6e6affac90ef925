// Arithmetic on sizes that come from files and requests: every result is
// either exact or absent. Nothing in format/ or heads/ multiplies a size that
// it has read with a bare `*`.
//
//   std::optional<int64_t> bytes = CheckedMul(rows, row_bytes);
//   if (!bytes) return absl::InvalidArgumentError("...: size overflows");
#pragma once

#include <concepts>
#include <limits>
#include <optional>
#include <utility>

namespace headcount {

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> CheckedAdd(T a, T b) {
  T sum{};
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> CheckedMul(T a, T b) {
  T product{};
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// `value` as `To`, or nothing when `To` cannot hold it.
template <std::integral To, std::integral From>
[[nodiscard]] constexpr std::optional<To> CheckedCast(From value) {
  if (!std::in_range<To>(value)) return std::nullopt;
  return static_cast<To>(value);
}

}  // namespace headcount
