// Flags that are numbers of a range. What is none of those is told in words of
// ours: CLI11's are of C++ types.
//
//   AddNumber(app, "--streams", &options->streams, {1, 1 << 20},
//             "requests in flight");
//   // --streams: 'abc' is not a whole number from 1 to 1048576
//
// T is int32_t, int64_t or uint64_t, or float or double, which are finite.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace headcount {

// Both ends included.
template <typename T>
struct Range {
  T least = std::numeric_limits<T>::lowest();
  T most = std::numeric_limits<T>::max();
};

template <typename T>
bool ParseNumber(const std::string& text, T* value) {
  if constexpr (std::is_integral_v<T>) {
    return absl::SimpleAtoi(text, value);
  } else if constexpr (std::is_same_v<T, float>) {
    return absl::SimpleAtof(text, value) && std::isfinite(*value);
  } else {
    return absl::SimpleAtod(text, value) && std::isfinite(*value);
  }
}

// "a whole number from 1 to 8", "a number", "a number from 0 on".
template <typename T>
std::string NumberOf(const Range<T>& range) {
  const char* const number =
      std::is_integral_v<T> ? "a whole number" : "a number";
  const Range<T> all;
  if (std::is_integral_v<T> || range.most != all.most) {
    return absl::StrCat(number, " from ", range.least, " to ", range.most);
  }
  if (range.least == all.least) return number;
  return absl::StrCat(number, " from ", range.least, " on");
}

// What the flag `name` was given as `text`, or CLI::ValidationError.
template <typename T>
T ReadNumber(const std::string& name, const std::string& text,
             const Range<T>& range) {
  T value{};
  if (ParseNumber(text, &value) && value >= range.least &&
      value <= range.most) {
    return value;
  }
  throw CLI::ValidationError(
      name, absl::StrCat("'", text, "' is not ", NumberOf(range)));
}

// Help has the range, unless its end is only what T can hold.
template <typename T>
CLI::Option* AddNumber(CLI::App& app, const std::string& name,
                       std::function<void(T)> set, const Range<T>& range,
                       const std::string& description) {
  const bool bounded = range.most != Range<T>().most;
  return app
      .add_option_function<std::string>(
          name,
          [name, range, set = std::move(set)](const std::string& text) {
            set(ReadNumber(name, text, range));
          },
          bounded
              ? absl::StrCat(description, "; ", range.least, " to ", range.most)
              : description)
      ->type_name(std::is_integral_v<T> ? "N" : "NUMBER");
}

// What `value` is before is shown as the default.
template <typename T>
requires std::is_arithmetic_v<T> CLI::Option* AddNumber(
    CLI::App& app, const std::string& name, T* value,
    const Range<std::type_identity_t<T>>& range,
    const std::string& description) {
  return AddNumber<T>(app, name, std::function<void(T)>([value](T number) {
                        *value = number;
                      }),
                      range, description)
      ->default_str(absl::StrCat(*value));
}

template <typename T>
CLI::Option* AddNumber(CLI::App& app, const std::string& name,
                       std::optional<T>* value,
                       const Range<std::type_identity_t<T>>& range,
                       const std::string& description) {
  return AddNumber<T>(
      app, name, std::function<void(T)>([value](T number) { *value = number; }),
      range, description);
}

}  // namespace headcount
