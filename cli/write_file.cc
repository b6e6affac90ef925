#include "cli/write_file.h"

#include <fstream>

#include "absl/strings/str_cat.h"

namespace headcount {

absl::Status WriteFile(const std::string& path, absl::string_view bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << bytes << std::flush;
  if (file) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": cannot be written; name another place"));
}

}  // namespace headcount
