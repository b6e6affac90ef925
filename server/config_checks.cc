#include "server/config_checks.h"

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/human.h"

namespace headcount {

absl::Status Invalid(absl::string_view path, absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", text));
}

absl::Status CheckByteSize(absl::string_view path, const std::string& text) {
  const absl::StatusOr<int64_t> bytes = ParseByteSize(text);
  if (!bytes.ok()) return Invalid(path, bytes.status().message());
  if (*bytes <= 0) return Invalid(path, "must be over 0");
  return absl::OkStatus();
}

}  // namespace headcount
