// The mails of the demo: models/mailroom/examples.jsonl.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace headcount {

struct DemoMail {
  std::string subject;
  std::string label;  // the truth
  std::string body;
};

// One object a line, with the strings "subject", "label" and "body".
absl::StatusOr<std::vector<DemoMail>> ReadMails(const std::string& path);

}  // namespace headcount
