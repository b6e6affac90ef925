#include "format/json_events.h"

#include "absl/strings/str_cat.h"
#include "format/quoted.h"

namespace headcount {
namespace {

// The library's words without the name of its exception in brackets. They
// quote what was read last, which can be the whole text.
std::string Reason(std::string_view words) {
  const size_t bracket = words.find("] ");
  if (bracket != words.npos) words.remove_prefix(bracket + 2);
  return Printable(words, 160);
}

}  // namespace

absl::Status JsonEvents::Walk(std::string_view text, std::string_view what) {
  what_ = what;
  // The library would take a NUL for the end and ignore what follows.
  const size_t nul = text.find('\0');
  if (nul != text.npos) {
    Fail(absl::StrCat("at byte ", nul, ": a NUL byte is not JSON"));
    return status_;
  }
  nlohmann::json_sax<nlohmann::json>* const events = this;
  static_cast<void>(
      nlohmann::json::sax_parse(text.begin(), text.end(), events));
  return status_;
}

bool JsonEvents::Fail(const std::string& message) {
  status_ = absl::InvalidArgumentError(absl::StrCat(what_, ": ", message));
  return false;
}

bool JsonEvents::binary(binary_t&) { return Fail("binary value in a text"); }

bool JsonEvents::parse_error(size_t position, const std::string&,
                             const nlohmann::json::exception& error) {
  return Fail(absl::StrCat("at byte ", position, ": ", Reason(error.what())));
}

}  // namespace headcount
