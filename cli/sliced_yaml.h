// The headcount.yaml of an exported model.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "heads/head_layout.h"

namespace headcount {

// The headcount.yaml of the model at `path` (as `serve` takes it: a folder, or
// such a file itself), or nothing if there is none.
std::optional<std::string> YamlOf(const std::string& path);

// The file at `yaml_path` without `source` and `heads`, which the exported
// weights say, and with the KV heads of kv_cache.heads as those are numbered
// once only the heads of `layout` are left. Comments are not kept.
absl::StatusOr<std::string> SlicedYaml(const std::string& yaml_path,
                                       const HeadLayout& layout);

}  // namespace headcount
