// The first rule that was found broken, and by what.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"

namespace headcount::sim {

class Verdict {
 public:
  // `rule` names the invariant; `parts` say what was found, and are put
  // together only when it is broken. Returns `holds`.
  template <typename... Parts>
  bool Expect(bool holds, const char* rule, const Parts&... parts) {
    if (holds || broken()) return holds;
    rule_ = rule;
    message_ = absl::StrCat(parts...);
    return false;
  }

  bool broken() const { return !rule_.empty(); }
  const std::string& rule() const { return rule_; }
  const std::string& message() const { return message_; }

 private:
  std::string rule_;
  std::string message_;
};

}  // namespace headcount::sim
