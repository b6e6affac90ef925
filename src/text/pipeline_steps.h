// The steps of one component of a tokenizer.json.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace headcount {

struct PipelineStep {
  std::string field;  // such as "pre_tokenizer.pretokenizers[0]"
  std::string type;
  const nlohmann::json* json;
};

// The steps of a component that is null, one step or a Sequence of steps, which
// are under `list_key`. A Sequence inside a Sequence is left to the caller, who
// knows no such step.
absl::StatusOr<std::vector<PipelineStep>> ReadPipelineSteps(
    const nlohmann::json& root, const std::string& component,
    const std::string& list_key);

// "<field>.type: "<type>" is not supported here; <supported>".
absl::Status UnsupportedStep(const PipelineStep& step,
                             const std::string& supported);

// The `pattern` of a Replace or Split that is {"String": "..."}.
absl::StatusOr<std::string> ReadLiteralPattern(const PipelineStep& step);

}  // namespace headcount
