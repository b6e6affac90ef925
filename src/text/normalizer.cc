#include "text/normalizer.h"

#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "text/unicode.h"

namespace headcount {
namespace {

constexpr absl::string_view kMark(kSpaceMark.data(), kSpaceMark.size());

absl::string_view View(std::string_view text) {
  return {text.data(), text.size()};
}

}  // namespace

std::string MarkSpaces(std::string_view text) {
  return absl::StrReplaceAll(View(text), {{" ", kMark}});
}

std::string UnmarkSpaces(std::string_view text) {
  return absl::StrReplaceAll(View(text), {{kMark, " "}});
}

std::string Normalizer::Apply(std::string_view text, TextPlace place) const {
  std::string normalized = nfc ? NormalizeNfc(text) : std::string(text);
  if (prepend_mark && place != TextPlace::kAfterText && !normalized.empty()) {
    normalized.insert(0, kSpaceMark);
  }
  return mark_spaces ? MarkSpaces(normalized) : normalized;
}

}  // namespace headcount
