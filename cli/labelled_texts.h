// Texts to classify from a file: JSON lines, plain or compressed by gzip.
//
//   {"label": "spam", "body": "You have won"}
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace headcount {

struct LabelledText {
  std::string text;
  std::string label;  // the truth; empty: not known
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
