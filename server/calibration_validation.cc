#include "server/calibration_validation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors.h"
#include "server/field_checks.h"
#include "server/limits.h"
#include "server/validation.h"

namespace headcount {
namespace {

// The label that `example` expects, if it does.
absl::StatusOr<std::optional<size_t>> ExpectedLabel(
    const std::string& field, const v1::CalibrationExample& example,
    const ServedModel& model) {
  switch (example.expected_case()) {
    case v1::CalibrationExample::EXPECTED_NOT_SET:
      return std::nullopt;
    case v1::CalibrationExample::kLabel:
      break;
    case v1::CalibrationExample::kTargetText:
    case v1::CalibrationExample::kTargetTokens:
      return FieldError(absl::StrCat(field, ".expected"),
                        "a target follows a prompt; with classify_text, set "
                        "label or nothing");
  }
  const std::vector<ClassifySetup::Label>& labels = model.classify->labels;
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i].text == example.label()) return i;
  }
  return FieldError(absl::StrCat(field, ".label"),
                    absl::StrCat("is not one of the ", labels.size(),
                                 " labels of '", model.name, "'"));
}

absl::StatusOr<CheckedExample> TextToClassify(
    const std::string& field, const v1::CalibrationExample& example,
    const ServedModel& model) {
  const absl::Status offered = CheckClassifies(model);
  if (!offered.ok()) return offered;
  absl::StatusOr<std::optional<size_t>> label =
      ExpectedLabel(field, example, model);
  if (!label.ok()) return label.status();
  const std::string text_field = absl::StrCat(field, ".classify_text");
  const absl::Status bytes =
      CheckTextBytes(text_field, example.classify_text(), model);
  if (!bytes.ok()) return bytes;
  CheckedExample checked{.prompt = model.classify->prompt.Render(
                             example.classify_text(), *model.tokenizer),
                         .classifies = true,
                         .label = *label};
  if (checked.prompt.empty()) return FieldError(text_field, "empty");
  size_t longest = 0;
  for (const ClassifySetup::Label& next : model.classify->labels) {
    longest = std::max(longest, next.ids.size());
  }
  const auto tokens = static_cast<int64_t>(checked.prompt.size() + longest);
  if (tokens > model.max_context) return TooLong(text_field, tokens, model);
  return checked;
}

absl::StatusOr<std::vector<int32_t>> Target(
    const std::string& field, const v1::CalibrationExample& example,
    Targets targets, const ServedModel& model) {
  switch (example.expected_case()) {
    case v1::CalibrationExample::kTargetText:
      return EncodedAnswer(absl::StrCat(field, ".target_text"),
                           example.target_text(), TextPlace::kAfterText, model);
    case v1::CalibrationExample::kTargetTokens:
      return GivenIds(absl::StrCat(field, ".target_tokens"),
                      example.target_tokens(), model);
    case v1::CalibrationExample::kLabel:
      return FieldError(absl::StrCat(field, ".label"),
                        "goes with classify_text; after a prompt, set "
                        "target_text or target_tokens");
    case v1::CalibrationExample::EXPECTED_NOT_SET:
      break;
  }
  if (targets == Targets::kOptional) return std::vector<int32_t>();
  return FieldError(
      absl::StrCat(field, ".expected"),
      "missing; after a prompt, set target_text or target_tokens");
}

absl::StatusOr<CheckedExample> TextToContinue(
    const std::string& field, const v1::CalibrationExample& example,
    Targets targets, const ServedModel& model) {
  const bool text = example.has_prompt_text();
  const std::string prompt_field =
      absl::StrCat(field, text ? ".prompt_text" : ".prompt_tokens");
  absl::StatusOr<std::vector<int32_t>> prompt =
      text ? EncodedPrompt(prompt_field, example.prompt_text(), model)
           : GivenIds(prompt_field, example.prompt_tokens(), model);
  if (!prompt.ok()) return prompt.status();
  if (prompt->empty()) {
    return FieldError(prompt_field,
                      "has no tokens; a target follows at least one");
  }
  absl::StatusOr<std::vector<int32_t>> target =
      Target(field, example, targets, model);
  if (!target.ok()) return target.status();
  const auto tokens = static_cast<int64_t>(prompt->size() + target->size());
  if (tokens > model.max_context) return TooLong(field, tokens, model);
  const int64_t places = kMaxCalibrationRowBytes / LogprobRowBytes(1, model);
  if (targets == Targets::kNeeded &&
      static_cast<int64_t>(target->size()) > places) {
    return FieldError(
        absl::StrCat(field, ".expected"),
        absl::StrCat(target->size(), " tokens; at most ", places,
                     " are compared over a vocabulary of ", model.vocab));
  }
  return CheckedExample{.prompt = *std::move(prompt),
                        .target = *std::move(target)};
}

absl::StatusOr<CheckedExample> Checked(const std::string& field,
                                       const v1::CalibrationExample& example,
                                       Targets targets,
                                       const ServedModel& model) {
  switch (example.input_case()) {
    case v1::CalibrationExample::kClassifyText:
      return TextToClassify(field, example, model);
    case v1::CalibrationExample::kPromptText:
    case v1::CalibrationExample::kPromptTokens:
      return TextToContinue(field, example, targets, model);
    case v1::CalibrationExample::INPUT_NOT_SET:
      break;
  }
  return FieldError(absl::StrCat(field, ".input"),
                    "missing; set classify_text, prompt_text or prompt_tokens");
}

}  // namespace

absl::StatusOr<std::vector<CheckedExample>> CheckedExamples(
    const CalibrationExamples& examples, Targets targets,
    const ServedModel& model) {
  if (examples.empty()) return FieldError("examples", "empty; at least one");
  const absl::Status count =
      CheckCount("examples", examples.size(), kMaxCalibrationExamples);
  if (!count.ok()) return count;
  std::vector<CheckedExample> checked;
  int64_t total = 0;
  for (int i = 0; i < examples.size(); ++i) {
    const std::string field = absl::StrCat("examples[", i, "]");
    absl::StatusOr<CheckedExample> example =
        Checked(field, examples[i], targets, model);
    if (!example.ok()) return example.status();
    total +=
        static_cast<int64_t>(example->prompt.size() + example->target.size());
    if (total > kMaxCalibrationTokens) {
      return FieldError(
          field, absl::StrCat("brings the call over ", kMaxCalibrationTokens,
                              " tokens; send fewer examples"));
    }
    checked.push_back(*std::move(example));
  }
  return checked;
}

absl::StatusOr<std::vector<std::vector<float>>> CheckedSettings(
    const google::protobuf::RepeatedPtrField<v1::HeadGates>& gates,
    const ServedModel& model) {
  const absl::Status count =
      CheckCount("gates", gates.size(), kMaxGateSettings);
  if (!count.ok()) return count;
  std::vector<std::vector<float>> settings;
  for (int i = 0; i < gates.size(); ++i) {
    absl::StatusOr<std::vector<float>> setting =
        CheckedGates(absl::StrCat("gates[", i, "]"), gates[i], model);
    if (!setting.ok()) return setting.status();
    settings.push_back(*std::move(setting));
  }
  return settings;
}

int64_t LogprobRowBytes(size_t places, const ServedModel& model) {
  return static_cast<int64_t>(places * sizeof(float)) * model.vocab;
}

}  // namespace headcount
