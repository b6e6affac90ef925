#include "text/text_pipeline.h"

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "text/json_fields.h"

namespace headcount {
namespace {

using Json = nlohmann::json;

struct Step {
  std::string field;  // such as "pre_tokenizer.pretokenizers[0]"
  std::string type;
  const Json* json;
};

// The steps of a component that is null, one step or a Sequence of steps. A
// Sequence inside a Sequence is left to the caller, who knows no such step.
absl::StatusOr<std::vector<Step>> ReadSteps(const Json& root,
                                            const std::string& component,
                                            const std::string& list_key) {
  std::vector<Step> steps;
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

absl::Status Unsupported(const Step& step, const std::string& supported) {
  return InvalidField(absl::StrCat(step.field, ".type"), "\"", step.type,
                      "\" is not supported here; ", supported);
}

absl::Status ReadNormalizer(const Json& root, TextPipeline& pipeline) {
  const auto steps = ReadSteps(root, "normalizer", "normalizers");
  if (!steps.ok()) return steps.status();
  for (const Step& step : *steps) {
    if (step.type != "NFC") return Unsupported(step, "NFC is");
    pipeline.nfc = true;
  }
  return absl::OkStatus();
}

absl::StatusOr<SplitRule> ReadSplit(const Step& step) {
  const Json* pattern = FindMember(*step.json, "pattern");
  const std::string pattern_field = absl::StrCat(step.field, ".pattern");
  if (pattern == nullptr) return InvalidField(pattern_field, "is missing");
  const absl::StatusOr<std::string> regex =
      ReadString(*pattern, "Regex", absl::StrCat(pattern_field, ".Regex"));
  if (!regex.ok()) return regex.status();
  const std::optional<SplitRule> rule = SplitRuleOf(*regex);
  if (!rule.has_value()) {
    return InvalidField(absl::StrCat(pattern_field, ".Regex"), Describe(*regex),
                        " is not supported; the patterns of Llama 3 and Qwen2 "
                        "are");
  }
  const std::string behavior_field = absl::StrCat(step.field, ".behavior");
  const absl::StatusOr<std::string> behavior =
      ReadString(*step.json, "behavior", behavior_field);
  if (!behavior.ok()) return behavior.status();
  if (*behavior != "Isolated") {
    return InvalidField(behavior_field, Describe(*behavior),
                        " is not supported; \"Isolated\" is");
  }
  const std::string invert_field = absl::StrCat(step.field, ".invert");
  const absl::StatusOr<bool> invert =
      ReadBool(*step.json, "invert", /*if_absent=*/false, invert_field);
  if (!invert.ok()) return invert.status();
  if (*invert) return InvalidField(invert_field, "true is not supported");
  return *rule;
}

absl::StatusOr<SplitRule> ReadDigits(const Step& step) {
  const absl::StatusOr<bool> individual =
      ReadBool(*step.json, "individual_digits", /*if_absent=*/false,
               absl::StrCat(step.field, ".individual_digits"));
  if (!individual.ok()) return individual.status();
  return *individual ? SplitRule::kIndividualDigits : SplitRule::kDigitRuns;
}

// Adds the rule of ByteLevel, if it has one: with use_regex false it only
// spells the bytes. Both settings are true when absent, as in the reference.
absl::Status ReadByteLevel(const Step& step, TextPipeline& pipeline) {
  const std::string prefix_field =
      absl::StrCat(step.field, ".add_prefix_space");
  const absl::StatusOr<bool> prefix_space = ReadBool(
      *step.json, "add_prefix_space", /*if_absent=*/true, prefix_field);
  if (!prefix_space.ok()) return prefix_space.status();
  if (*prefix_space) {
    return InvalidField(prefix_field, "true is not supported; false is");
  }
  const absl::StatusOr<bool> use_regex =
      ReadBool(*step.json, "use_regex", /*if_absent=*/true,
               absl::StrCat(step.field, ".use_regex"));
  if (!use_regex.ok()) return use_regex.status();
  if (*use_regex) pipeline.split_rules.push_back(SplitRule::kGpt2);
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const Json& root, TextPipeline& pipeline) {
  const auto steps = ReadSteps(root, "pre_tokenizer", "pretokenizers");
  if (!steps.ok()) return steps.status();
  // After ByteLevel a text is in the alphabet of bytes, which no rule here
  // reads: it comes last.
  if (steps->empty() || steps->back().type != "ByteLevel") {
    return InvalidField("pre_tokenizer",
                        "does not end with ByteLevel; only byte-level "
                        "tokenizers are supported");
  }
  for (size_t i = 0; i + 1 < steps->size(); ++i) {
    const Step& step = (*steps)[i];
    if (step.type != "Split" && step.type != "Digits") {
      return Unsupported(step, "Split and Digits before one ByteLevel are");
    }
    const absl::StatusOr<SplitRule> rule =
        step.type == "Split" ? ReadSplit(step) : ReadDigits(step);
    if (!rule.ok()) return rule.status();
    pipeline.split_rules.push_back(*rule);
  }
  return ReadByteLevel(steps->back(), pipeline);
}

// Appends the ids of one SpecialToken of a TemplateProcessing.
absl::Status ReadTemplateToken(const Step& step, const Json& token,
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
absl::Status ReadTemplate(const Step& step, int32_t max_vocabulary,
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

absl::Status ReadPostProcessor(const Json& root, int32_t max_vocabulary,
                               TextPipeline& pipeline) {
  const auto steps = ReadSteps(root, "post_processor", "processors");
  if (!steps.ok()) return steps.status();
  for (const Step& step : *steps) {
    if (step.type == "ByteLevel") continue;  // moves offsets only
    if (step.type != "TemplateProcessing") {
      return Unsupported(step, "ByteLevel and TemplateProcessing are");
    }
    absl::Status status = ReadTemplate(step, max_vocabulary, pipeline);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckDecoder(const Json& root) {
  const auto steps = ReadSteps(root, "decoder", "decoders");
  if (!steps.ok()) return steps.status();
  if (steps->size() != 1) {
    return InvalidField("decoder", "has ", steps->size(),
                        " steps; one ByteLevel is supported");
  }
  const Step& step = steps->front();
  if (step.type != "ByteLevel") return Unsupported(step, "ByteLevel is");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TextPipeline> ReadTextPipeline(const Json& root,
                                              int32_t max_vocabulary) {
  TextPipeline pipeline;
  absl::Status status = ReadNormalizer(root, pipeline);
  if (status.ok()) status = ReadPreTokenizer(root, pipeline);
  if (status.ok()) status = ReadPostProcessor(root, max_vocabulary, pipeline);
  if (status.ok()) status = CheckDecoder(root);
  if (!status.ok()) return status;
  return pipeline;
}

}  // namespace headcount
