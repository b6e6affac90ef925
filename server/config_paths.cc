#include "server/config_paths.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace headcount {
namespace {

namespace fs = std::filesystem;

absl::Status CheckPath(const std::string& path, absl::string_view key,
                       const PathKeys& keys) {
  const absl::Status there =
      path.empty() ? absl::OkStatus() : CheckExists(path);
  if (there.ok()) return there;
  const bool in_a_file = keys.contains(path) && fs::path(path).is_relative();
  return absl::NotFoundError(absl::StrCat(
      KeyOf(path, key, keys), ": ", there.message(),
      in_a_file ? " (paths are relative to the configuration file)" : ""));
}

}  // namespace

absl::Status CheckExists(const std::string& path) {
  std::error_code error;
  if (fs::exists(path, error)) return absl::OkStatus();
  return absl::NotFoundError(error ? absl::StrCat(path, ": ", error.message())
                                   : absl::StrCat(path, " does not exist"));
}

std::string KeyOf(const std::string& path, absl::string_view key,
                  const PathKeys& keys) {
  const auto found = keys.find(path);
  return found == keys.end() ? std::string(key) : found->second;
}

absl::Status CheckPaths(const config::v1::ModelSpec& spec,
                        const PathKeys& keys) {
  const absl::Status status =
      CheckPath(spec.source().path(), "source.path", keys);
  if (!status.ok()) return status;
  return CheckPath(spec.heads().mask_file(), "heads.mask_file", keys);
}

}  // namespace headcount
