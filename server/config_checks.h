// What the rules of single keys of a configuration share.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace headcount {

// InvalidArgument for what is at `path`, such as "kv_cache.quota.min".
absl::Status Invalid(absl::string_view path, absl::string_view text);

// A size over 0, such as "2GiB".
absl::Status CheckByteSize(absl::string_view path, const std::string& text);

}  // namespace headcount
