#include "heads/head_mask.h"

#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace headcount {
namespace {

constexpr int kMaxHead = 65535;

// Decimal digits only, at most kMaxHead.
std::optional<int> ParseHead(std::string_view text) {
  if (text.empty() || text.size() > 5) return std::nullopt;
  int head = 0;
  for (char c : text) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) {
      return std::nullopt;
    }
    head = head * 10 + (c - '0');
  }
  if (head > kMaxHead) return std::nullopt;
  return head;
}

}  // namespace

absl::Status ParseHeadRange(std::string_view text, std::set<int>* heads) {
  const size_t dash = text.find('-');
  const std::optional<int> first = ParseHead(text.substr(0, dash));
  const std::optional<int> last =
      dash == std::string_view::npos ? first : ParseHead(text.substr(dash + 1));
  if (!first || !last) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", std::string(text.substr(0, 64)),
                     "\" is not a head (5) or an inclusive range of heads "
                     "(0-2), each at most ",
                     kMaxHead));
  }
  if (*first > *last) {
    return absl::InvalidArgumentError(
        absl::StrCat("range \"", std::string(text),
                     "\" is reversed: write it as ", *last, "-", *first));
  }
  for (int head = *first; head <= *last; ++head) heads->insert(head);
  return absl::OkStatus();
}

}  // namespace headcount
