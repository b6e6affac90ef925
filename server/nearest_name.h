// "Did you mean": the known name that a mistyped one is closest to.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace headcount {

// The candidate with the smallest edit distance to `name`, or an empty string
// if more than a third of the name, and more than two letters, differ.
std::string NearestName(absl::string_view name,
                        const std::vector<std::string>& candidates);

}  // namespace headcount
