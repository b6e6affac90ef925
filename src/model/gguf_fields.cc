#include "model/gguf_fields.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace headcount {

GgufFields::GgufFields(const GgufMetadata& metadata,
                       std::string_view architecture)
    : metadata_(metadata), prefix_(std::string(architecture) + ".") {}

std::string GgufFields::Name(std::string_view key) const {
  return (key.starts_with("tokenizer.") ? "" : prefix_) + std::string(key);
}

void GgufFields::Fail(std::string_view key, std::string_view message) {
  if (status_.ok()) status_ = metadata_.Invalid(Name(key), message);
}

template <typename T>
std::optional<T> GgufFields::Take(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  // NotFound would mean that the file is not there.
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(value.status().message());
  }
  return std::nullopt;
}

int32_t GgufFields::InRange(std::string_view key, int64_t value,
                            IntRange range) {
  if (value >= range.min && value <= range.max) {
    return static_cast<int32_t>(value);
  }
  Fail(key, absl::StrCat(value, " is out of range; must be ", range.min, " to ",
                         range.max));
  return range.min;
}

int32_t GgufFields::Int(std::string_view key, IntRange range,
                        std::optional<int32_t> absent) {
  if (absent && !Has(key)) return *absent;
  const std::optional<int64_t> value = Take(metadata_.Int(Name(key)));
  return value ? InRange(key, *value, range) : range.min;
}

double GgufFields::Number(std::string_view key, NumberRange range,
                          std::optional<double> absent) {
  if (absent && !Has(key)) return *absent;
  const double value = Take(metadata_.Number(Name(key))).value_or(range.max);
  if (std::isfinite(value) && value > range.above && value <= range.max) {
    return value;
  }
  Fail(key, absl::StrCat(value, " is out of range; must be greater than ",
                         range.above, " and at most ", range.max));
  return range.max;
}

bool GgufFields::Bool(std::string_view key, bool absent) {
  if (!Has(key)) return absent;
  return Take(metadata_.Bool(Name(key))).value_or(absent);
}

std::string GgufFields::String(std::string_view key,
                               const std::string& absent) {
  if (!Has(key)) return absent;
  return Take(metadata_.String(Name(key))).value_or(absent);
}

std::vector<int32_t> GgufFields::PerLayer(std::string_view key, int32_t layers,
                                          IntRange range) {
  std::vector<int32_t> numbers(static_cast<size_t>(layers), range.min);
  const std::optional<std::vector<int64_t>> values =
      Take(metadata_.Ints(Name(key)));
  if (!values) return numbers;
  if (values->size() != 1 && values->size() != numbers.size()) {
    Fail(key, absl::StrCat("has ", values->size(), " numbers for ", layers,
                           " layers"));
    return numbers;
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = InRange(key, (*values)[values->size() == 1 ? 0 : i], range);
  }
  return numbers;
}

}  // namespace headcount
