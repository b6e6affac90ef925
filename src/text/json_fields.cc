#include "text/json_fields.h"

#include <cstddef>
#include <optional>

#include "base/checked.h"
#include "text/unicode.h"

namespace headcount {

using Json = nlohmann::json;

std::string Describe(const Json& value) {
  constexpr size_t kMaxBytes = 300;
  if (value.is_structured()) return absl::StrCat("an ", value.type_name());
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/false,
                                Json::error_handler_t::replace);
  if (text.size() <= kMaxBytes) return text;
  return ToUtf8(text.substr(0, kMaxBytes)) + "...";
}

const Json* FindMember(const Json& object, const std::string& key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<std::string> ReadString(const Json& object,
                                       const std::string& key,
                                       const std::string& field) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return InvalidField(field, "is missing");
  if (!value->is_string()) {
    return InvalidField(field, "is ", Describe(*value), ", not a string");
  }
  return value->get_ref<const std::string&>();
}

absl::StatusOr<bool> ReadBool(const Json& object, const std::string& key,
                              bool if_absent, const std::string& field) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return if_absent;
  if (!value->is_boolean()) {
    return InvalidField(field, "is ", Describe(*value), ", not true or false");
  }
  return value->get<bool>();
}

absl::StatusOr<const Json*> ReadContainer(const Json& object,
                                          const std::string& key,
                                          Json::value_t type,
                                          const std::string& field) {
  const Json* value = FindMember(object, key);
  if (value == nullptr) return InvalidField(field, "is missing");
  if (value->type() != type) {
    return InvalidField(field, "is ", Describe(*value), ", not an ",
                        Json(type).type_name());
  }
  return value;
}

absl::StatusOr<int32_t> ReadIndex(const Json& value, int32_t limit,
                                  const std::string& field) {
  std::optional<int32_t> index;
  if (value.is_number_unsigned()) {
    index = CheckedCast<int32_t>(value.get<uint64_t>());
  } else if (value.is_number_integer()) {
    index = CheckedCast<int32_t>(value.get<int64_t>());
  }
  if (!index.has_value() || *index < 0 || *index >= limit) {
    return InvalidField(field, "is ", Describe(value),
                        ", not a number from 0 to ", limit - 1);
  }
  return *index;
}

}  // namespace headcount
