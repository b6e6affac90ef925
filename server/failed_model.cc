#include "server/failed_model.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "text/unicode.h"

namespace headcount {
namespace {

// What a '/' follows inside a path, rather than at its beginning.
bool EndsAWord(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         !absl::ascii_isascii(static_cast<unsigned char>(c)) ||
         absl::StrContains("/_-)", c);
}

// Whether a '/' begins a word, or follows a dot, as it does in "/a" and "../a".
bool HasPathFromElsewhere(absl::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '/' && (i == 0 || !EndsAWord(text[i - 1]))) return true;
  }
  return false;
}

// Messages name files by the paths of the configuration; of those, the last
// part stays. One that names another place is not told at all.
std::string WithoutPaths(const config::v1::ModelSpec& spec,
                         absl::string_view message) {
  std::vector<std::pair<std::string, std::string>> names;
  for (absl::string_view path : {absl::string_view(spec.source().path()),
                                 absl::string_view(spec.heads().mask_file())}) {
    while (absl::ConsumeSuffix(&path, "/")) {
    }
    if (path.empty()) continue;
    names.emplace_back(
        path, std::filesystem::path(std::string(path)).filename().string());
  }
  const std::string text = absl::StrReplaceAll(message, names);
  return HasPathFromElsewhere(text) ? "see the server's log" : ToUtf8(text);
}

}  // namespace

FailedModel FailedModel::Of(const config::v1::ModelSpec& spec,
                            const absl::Status& status) {
  return {.name = spec.name(),
          .status = absl::Status(
              status.code(),
              absl::StrCat("model '", spec.name(), "': ", status.message())),
          .error = WithoutPaths(spec, status.message()),
          .base = spec.source().variant_of()};
}

void FailedModel::WriteTo(const Log& log) const {
  log.Error("model not loaded",
            LogFields().Add("model", name).Add("reason", status.message()));
}

}  // namespace headcount
