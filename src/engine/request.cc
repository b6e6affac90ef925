#include "engine/request.h"

#include "base/check.h"

namespace headcount {

std::string_view EndCauseName(EndCause cause) {
  switch (cause) {
    case EndCause::kStop:
      return "stop";
    case EndCause::kLength:
      return "length";
    case EndCause::kCancelled:
      return "cancelled";
    case EndCause::kDeadline:
      return "deadline";
    case EndCause::kError:
      return "error";
  }
  CHECK(false) << "no such cause: " << static_cast<int>(cause);
  return "";
}

}  // namespace headcount
