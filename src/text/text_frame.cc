#include "text/text_frame.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "text/json_fields.h"
#include "text/pipeline_steps.h"

namespace headcount {
namespace {

using Json = nlohmann::json;

// Appends the ids of one SpecialToken of a TemplateProcessing.
absl::Status ReadTemplateToken(const PipelineStep& step, const Json& token,
                               int32_t max_vocabulary,
                               std::vector<int32_t>& ids) {
  const std::string single_field = absl::StrCat(step.field, ".single");
  const absl::StatusOr<std::string> name =
      ReadString(token, "id", absl::StrCat(single_field, ".SpecialToken.id"));
  if (!name.ok()) return name.status();
  const std::string field =
      absl::StrCat(step.field, ".special_tokens[", Describe(*name), "].ids");
  const Json* tokens = FindMember(*step.json, "special_tokens");
  const Json* entry = tokens == nullptr ? nullptr : FindMember(*tokens, *name);
  if (entry == nullptr) return InvalidField(field, "is missing");
  const auto list = ReadContainer(*entry, "ids", Json::value_t::array, field);
  if (!list.ok()) return list.status();
  for (const Json& json : **list) {
    const absl::StatusOr<int32_t> id = ReadIndex(json, max_vocabulary, field);
    if (!id.ok()) return id.status();
    ids.push_back(*id);
  }
  return absl::OkStatus();
}

// The template for one text: SpecialTokens around exactly one Sequence A.
absl::Status ReadTemplate(const PipelineStep& step, int32_t max_vocabulary,
                          TextPipeline& pipeline) {
  const std::string field = absl::StrCat(step.field, ".single");
  const auto parts =
      ReadContainer(*step.json, "single", Json::value_t::array, field);
  if (!parts.ok()) return parts.status();
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  bool seen_text = false;
  for (const Json& part : **parts) {
    if (const Json* token = FindMember(part, "SpecialToken")) {
      absl::Status status = ReadTemplateToken(step, *token, max_vocabulary,
                                              seen_text ? after : before);
      if (!status.ok()) return status;
      continue;
    }
    const Json* text = FindMember(part, "Sequence");
    const Json* name = text == nullptr ? nullptr : FindMember(*text, "id");
    if (name == nullptr || *name != "A" || seen_text) {
      return InvalidField(field, "is not SpecialTokens around one Sequence A");
    }
    seen_text = true;
  }
  if (!seen_text) return InvalidField(field, "has no Sequence A");
  // Each processor wraps what the ones before it made.
  pipeline.prefix.insert(pipeline.prefix.begin(), before.begin(), before.end());
  pipeline.suffix.insert(pipeline.suffix.end(), after.begin(), after.end());
  return absl::OkStatus();
}

// RobertaProcessing: "sep": ["</s>", 2] and "cls" alike. Only ids count.
absl::StatusOr<int32_t> ReadRobertaToken(const PipelineStep& step,
                                         const std::string& key,
                                         int32_t max_vocabulary) {
  const std::string field = absl::StrCat(step.field, ".", key);
  const auto pair = ReadContainer(*step.json, key, Json::value_t::array, field);
  if (!pair.ok()) return pair.status();
  if ((*pair)->size() != 2) {
    return InvalidField(field, "has ", (*pair)->size(),
                        " entries, not a token and its id");
  }
  return ReadIndex((**pair)[1], max_vocabulary, absl::StrCat(field, "[1]"));
}

absl::Status ReadRoberta(const PipelineStep& step, int32_t max_vocabulary,
                         TextPipeline& pipeline) {
  const auto before = ReadRobertaToken(step, "cls", max_vocabulary);
  if (!before.ok()) return before.status();
  const auto after = ReadRobertaToken(step, "sep", max_vocabulary);
  if (!after.ok()) return after.status();
  pipeline.prefix.insert(pipeline.prefix.begin(), *before);
  pipeline.suffix.push_back(*after);
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadPostProcessor(const Json& root, int32_t max_vocabulary,
                               TextPipeline& pipeline) {
  const auto steps = ReadPipelineSteps(root, "post_processor", "processors");
  if (!steps.ok()) return steps.status();
  for (const PipelineStep& step : *steps) {
    absl::Status status;
    if (step.type == "TemplateProcessing") {
      status = ReadTemplate(step, max_vocabulary, pipeline);
    } else if (step.type == "RobertaProcessing") {
      status = ReadRoberta(step, max_vocabulary, pipeline);
    } else if (step.type != "ByteLevel") {  // which moves offsets only
      status = UnsupportedStep(
          step, "ByteLevel, RobertaProcessing and TemplateProcessing are");
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace headcount
