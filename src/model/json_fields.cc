#include "model/json_fields.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace headcount {

std::string Abridged(const nlohmann::json& value) {
  // A container can be of any size: its type says enough.
  if (value.is_structured()) return value.is_array() ? "a list" : "an object";
  constexpr size_t kMaxLength = 64;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true,
                                nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxLength) text = text.substr(0, kMaxLength - 3) + "...";
  return text;
}

JsonFields::JsonFields(const nlohmann::json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object.is_object()) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat(path_.empty() ? "the file" : path_,
                     ": must be an object, not ", Abridged(object)));
  }
}

const nlohmann::json* JsonFields::Find(const std::string& key) const {
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(key);
  if (found == object_.end() || found->is_null()) return nullptr;
  return &*found;
}

std::string JsonFields::NameOf(const std::string& key) const {
  return path_.empty() ? key : absl::StrCat(path_, ".", key);
}

void JsonFields::Fail(const std::string& key, const std::string& what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(NameOf(key), ": ", what));
}

void JsonFields::FailType(const std::string& key, const char* wanted,
                          const nlohmann::json& found) {
  Fail(key, absl::StrCat("must be ", wanted, ", not ", Abridged(found)));
}

std::optional<int32_t> JsonFields::ToInt(const std::string& key, IntRange range,
                                         const nlohmann::json& value) {
  if (!value.is_number_integer()) {
    FailType(key, "a whole number", value);
    return std::nullopt;
  }
  // A value over 2^63 is kept unsigned.
  const bool in_range =
      value.is_number_unsigned()
          ? range.max >= 0 &&
                value.get<uint64_t>() <= static_cast<uint64_t>(range.max) &&
                (range.min <= 0 ||
                 value.get<uint64_t>() >= static_cast<uint64_t>(range.min))
          : value.get<int64_t>() >= range.min &&
                value.get<int64_t>() <= range.max;
  if (!in_range) {
    Fail(key, absl::StrCat(Abridged(value), " is out of range; must be ",
                           range.min, " to ", range.max));
    return std::nullopt;
  }
  return value.get<int32_t>();
}

int32_t JsonFields::Int(const std::string& key, IntRange range,
                        std::optional<int32_t> absent) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!absent) Fail(key, "missing");
    return absent.value_or(range.min);
  }
  return ToInt(key, range, *value).value_or(range.min);
}

double JsonFields::Number(const std::string& key, NumberRange range,
                          std::optional<double> absent) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!absent) Fail(key, "missing");
    return absent.value_or(range.max);
  }
  if (!value->is_number()) {
    FailType(key, "a number", *value);
    return range.max;
  }
  const double number = value->get<double>();
  if (!std::isfinite(number) || number <= range.above || number > range.max) {
    Fail(key, absl::StrCat(std::isfinite(number) ? Abridged(*value)
                                                 : "a value that is "
                                                   "not finite",
                           " is out of range; must be greater than ",
                           range.above, " and at most ", range.max));
    return range.max;
  }
  return number;
}

bool JsonFields::Bool(const std::string& key, bool absent) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) {
    FailType(key, "true or false", *value);
    return absent;
  }
  return value->get<bool>();
}

std::string JsonFields::String(const std::string& key,
                               std::optional<std::string> absent) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) {
    if (!absent) Fail(key, "missing");
    return std::move(absent).value_or("");
  }
  if (!value->is_string()) {
    FailType(key, "a string", *value);
    return "";
  }
  return value->get<std::string>();
}

std::vector<int32_t> JsonFields::Ints(const std::string& key, IntRange range) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return {};
  if (!value->is_array()) {
    FailType(key, "a list of whole numbers", *value);
    return {};
  }
  std::vector<int32_t> ints;
  for (size_t i = 0; i < value->size(); ++i) {
    const std::optional<int32_t> element =
        ToInt(absl::StrCat(key, "[", i, "]"), range, (*value)[i]);
    if (!element) return {};
    ints.push_back(*element);
  }
  return ints;
}

void JsonFields::AllowOnly(absl::Span<const char* const> known) {
  if (!object_.is_object()) return;
  for (const auto& [key, value] : object_.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      Fail(key.substr(0, 64), "unknown key");
      return;
    }
  }
}

}  // namespace headcount
