#include "cli/output.h"

namespace headcount {

void PrintJson(Console& console, const Json& json) {
  console.out << json.dump(2, ' ', false, Json::error_handler_t::replace)
              << "\n";
}

}  // namespace headcount
