// Where an error stands.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace headcount {

// `status` with "<path>: " before its message.
inline absl::Status AtPath(const std::string& path,
                           const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(path, ": ", std::string(status.message())));
}

}  // namespace headcount
