// Files that commands write.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace headcount {

// All of it; FailedPrecondition, naming the path, if that cannot be.
absl::Status WriteFile(const std::string& path, absl::string_view bytes);

}  // namespace headcount
