// A YAML file as a bounded tree: one document, no anchors, aliases or tags, no
// key twice, limits of server/limits.h. Scalars stay text: what "1" or "no"
// means is told by the field that it is for, not by YAML.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace headcount {

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };

  Kind kind = Kind::kNull;
  int line = 1;                      // from 1
  int key_line = 1;                  // of its key, where it is the value of one
  std::string scalar = {};           // kScalar
  std::vector<YamlNode> items = {};  // kSequence
  std::vector<std::pair<std::string, YamlNode>> entries = {};  // kMap, in order
};

// InvalidArgument "`file`:line: ...". An empty text is kNull.
absl::StatusOr<YamlNode> ParseYaml(absl::string_view text,
                                   absl::string_view file);

}  // namespace headcount
