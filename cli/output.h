// Results for machines.
#pragma once

#include "cli/console.h"
#include "nlohmann/json.hpp"

namespace headcount {

// Members stay in the order in which they were added.
using Json = nlohmann::ordered_json;

// One indented document and a line feed; bytes that are no UTF-8 become U+FFFD.
void PrintJson(Console& console, const Json& json);

}  // namespace headcount
