#include "text/pipeline_steps.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "text/json_fields.h"

namespace headcount {

using Json = nlohmann::json;

absl::StatusOr<std::vector<PipelineStep>> ReadPipelineSteps(
    const Json& root, const std::string& component,
    const std::string& list_key) {
  std::vector<PipelineStep> steps;
  const Json* value = FindMember(root, component);
  if (value == nullptr) return steps;
  absl::StatusOr<std::string> type =
      ReadString(*value, "type", absl::StrCat(component, ".type"));
  if (!type.ok()) return type.status();
  if (*type != "Sequence") {
    steps.push_back({component, *std::move(type), value});
    return steps;
  }
  const std::string list_field = absl::StrCat(component, ".", list_key);
  const auto list =
      ReadContainer(*value, list_key, Json::value_t::array, list_field);
  if (!list.ok()) return list.status();
  for (const Json& json : **list) {
    std::string field = absl::StrCat(list_field, "[", steps.size(), "]");
    absl::StatusOr<std::string> step_type =
        ReadString(json, "type", absl::StrCat(field, ".type"));
    if (!step_type.ok()) return step_type.status();
    steps.push_back({std::move(field), *std::move(step_type), &json});
  }
  return steps;
}

absl::Status UnsupportedStep(const PipelineStep& step,
                             const std::string& supported) {
  return InvalidField(absl::StrCat(step.field, ".type"), "\"", step.type,
                      "\" is not supported here; ", supported);
}

absl::StatusOr<std::string> ReadLiteralPattern(const PipelineStep& step) {
  const std::string field = absl::StrCat(step.field, ".pattern");
  const Json* pattern = FindMember(*step.json, "pattern");
  if (pattern == nullptr) return InvalidField(field, "is missing");
  return ReadString(*pattern, "String", absl::StrCat(field, ".String"));
}

}  // namespace headcount
