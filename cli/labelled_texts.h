// Texts from a file, and what is expected of them: JSON lines, plain or
// compressed by gzip.
//
//   {"label": "spam", "body": "You have won"}
//   {"text": "Dear all, the ...", "target": "Meeting moved", "split": "test"}
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace headcount {

struct LabelledText {
  std::string text;
  std::string label;        // the truth; empty: not known
  std::string target = {};  // the text that should follow; empty: not known
  std::string split = {};   // as the line names it; empty: it does not
};

// One line. InvalidArgument, naming `where`, for what is no JSON object, for a
// missing field and for one that is no string. Without `field`, the text is in
// "text" or "body".
absl::StatusOr<LabelledText> ParseLabelledText(const std::string& line,
                                               const std::string& field,
                                               const std::string& where);

// All lines that are not empty, each of at most 4 MiB.
absl::StatusOr<std::vector<LabelledText>> ReadLabelledTexts(
    const std::string& path, const std::string& field);

}  // namespace headcount
