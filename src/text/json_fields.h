// Reads fields of a parsed JSON tree that nobody vouches for. Errors are
// InvalidArgument, "<field>: <what is wrong>", where `field` is the full path
// as the user knows it. A member that is null counts as absent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace headcount {

template <typename... Parts>
absl::Status InvalidField(const std::string& field, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", parts...));
}

// `value` for an error message: scalars as JSON, shortened; "an object".
std::string Describe(const nlohmann::json& value);

// The member `key`; null when it is absent, or when `object` is no object.
const nlohmann::json* FindMember(const nlohmann::json& object,
                                 const std::string& key);

absl::StatusOr<std::string> ReadString(const nlohmann::json& object,
                                       const std::string& key,
                                       const std::string& field);
absl::StatusOr<bool> ReadBool(const nlohmann::json& object,
                              const std::string& key, bool if_absent,
                              const std::string& field);
// The array or object `key`. The pointer is not null.
absl::StatusOr<const nlohmann::json*> ReadContainer(
    const nlohmann::json& object, const std::string& key,
    nlohmann::json::value_t type, const std::string& field);

// `value` itself as an integer from 0 to `limit` - 1.
absl::StatusOr<int32_t> ReadIndex(const nlohmann::json& value, int32_t limit,
                                  const std::string& field);

}  // namespace headcount
