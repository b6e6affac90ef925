#include "text/text_pipeline.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "text/json_fields.h"
#include "text/pipeline_steps.h"
#include "text/text_frame.h"

namespace headcount {
namespace {

using Json = nlohmann::json;

// A text field that has one supported value.
absl::Status ExpectText(const PipelineStep& step, const std::string& key,
                        std::string_view expected) {
  const std::string field = absl::StrCat(step.field, ".", key);
  const absl::StatusOr<std::string> text = ReadString(*step.json, key, field);
  if (!text.ok()) return text.status();
  if (*text == expected) return absl::OkStatus();
  return InvalidField(field, Describe(*text), " is not supported; \"",
                      std::string(expected), "\" is");
}

// A Replace, in normalizer or decoder.
absl::Status ExpectReplace(const PipelineStep& step, std::string_view from,
                           std::string_view to) {
  const absl::StatusOr<std::string> pattern = ReadLiteralPattern(step);
  if (!pattern.ok()) return pattern.status();
  if (*pattern != from) {
    return InvalidField(absl::StrCat(step.field, ".pattern.String"),
                        Describe(*pattern), " is not supported; \"",
                        std::string(from), "\" is");
  }
  return ExpectText(step, "content", to);
}

absl::Status ReadNormalizer(const Json& root, bool byte_fallback,
                            Normalizer& normalizer) {
  const auto steps = ReadPipelineSteps(root, "normalizer", "normalizers");
  if (!steps.ok()) return steps.status();
  for (const PipelineStep& step : *steps) {
    absl::Status status;
    if (step.type == "NFC") {
      normalizer.nfc = true;
    } else if (!byte_fallback) {
      return UnsupportedStep(step, "NFC is");
    } else if (step.type == "Prepend" && !normalizer.prepend_mark) {
      status = ExpectText(step, "prepend", kSpaceMark);
      normalizer.prepend_mark = true;
    } else if (step.type == "Replace") {
      status = ExpectReplace(step, " ", kSpaceMark);
      normalizer.mark_spaces = true;
    } else {
      return UnsupportedStep(step, "NFC, one Prepend and Replace are");
    }
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Split with one of the patterns that are known.
absl::StatusOr<SplitRule> ReadSplit(const PipelineStep& step) {
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

absl::StatusOr<SplitRule> ReadDigits(const PipelineStep& step) {
  const absl::StatusOr<bool> individual =
      ReadBool(*step.json, "individual_digits", /*if_absent=*/false,
               absl::StrCat(step.field, ".individual_digits"));
  if (!individual.ok()) return individual.status();
  return *individual ? SplitRule::kIndividualDigits : SplitRule::kDigitRuns;
}

// Adds the rule of ByteLevel, if it has one: with use_regex false it only
// spells the bytes. Both settings are true when absent, as in the reference.
absl::Status ReadByteLevel(const PipelineStep& step, bool alone,
                           PreTokenizer& pre_tokenizer) {
  const std::string prefix_field =
      absl::StrCat(step.field, ".add_prefix_space");
  const absl::StatusOr<bool> prefix_space = ReadBool(
      *step.json, "add_prefix_space", /*if_absent=*/true, prefix_field);
  if (!prefix_space.ok()) return prefix_space.status();
  if (*prefix_space && !alone) {
    return InvalidField(prefix_field,
                        "true is not supported after other steps");
  }
  if (*prefix_space) pre_tokenizer.prefix = PreTokenizer::Prefix::kAll;
  const absl::StatusOr<bool> use_regex =
      ReadBool(*step.json, "use_regex", /*if_absent=*/true,
               absl::StrCat(step.field, ".use_regex"));
  if (!use_regex.ok()) return use_regex.status();
  if (*use_regex) pre_tokenizer.split_rules.push_back(SplitRule::kGpt2);
  return absl::OkStatus();
}

absl::Status ReadByteLevelSteps(const std::vector<PipelineStep>& steps,
                                PreTokenizer& pre_tokenizer) {
  // After ByteLevel a text is in the alphabet of bytes, which no rule here
  // reads: it comes last.
  if (steps.empty() || steps.back().type != "ByteLevel") {
    return InvalidField("pre_tokenizer",
                        "does not end with ByteLevel, as that of a model "
                        "without byte_fallback must");
  }
  for (size_t i = 0; i + 1 < steps.size(); ++i) {
    const PipelineStep& step = steps[i];
    if (step.type != "Split" && step.type != "Digits") {
      return UnsupportedStep(step, "Split and Digits before one ByteLevel are");
    }
    const absl::StatusOr<SplitRule> rule =
        step.type == "Split" ? ReadSplit(step) : ReadDigits(step);
    if (!rule.ok()) return rule.status();
    pre_tokenizer.split_rules.push_back(*rule);
  }
  return ReadByteLevel(steps.back(), /*alone=*/steps.size() == 1,
                       pre_tokenizer);
}

absl::StatusOr<PreTokenizer::Prefix> ReadPrependScheme(
    const PipelineStep& step) {
  using Prefix = PreTokenizer::Prefix;
  const std::string field = absl::StrCat(step.field, ".prepend_scheme");
  std::string scheme = "always";
  if (FindMember(*step.json, "prepend_scheme") != nullptr) {
    absl::StatusOr<std::string> text =
        ReadString(*step.json, "prepend_scheme", field);
    if (!text.ok()) return text.status();
    scheme = *std::move(text);
  }
  // What old files say instead; the reference ignores true.
  const absl::StatusOr<bool> add_prefix =
      ReadBool(*step.json, "add_prefix_space", /*if_absent=*/true,
               absl::StrCat(step.field, ".add_prefix_space"));
  if (!add_prefix.ok()) return add_prefix.status();
  if (!*add_prefix && scheme != "never") {
    return InvalidField(field, Describe(scheme),
                        " contradicts add_prefix_space, which is false");
  }
  if (scheme == "always") return Prefix::kAll;
  if (scheme == "first") return Prefix::kFirst;
  if (scheme == "never") return Prefix::kNone;
  return InvalidField(field, Describe(scheme),
                      " is not \"always\", \"first\" or \"never\"");
}

absl::Status ReadMetaspace(const PipelineStep& step,
                           PreTokenizer& pre_tokenizer) {
  absl::Status mark = ExpectText(step, "replacement", kSpaceMark);
  if (!mark.ok()) return mark;
  const auto prefix = ReadPrependScheme(step);
  if (!prefix.ok()) return prefix.status();
  const absl::StatusOr<bool> split =
      ReadBool(*step.json, "split", /*if_absent=*/true,
               absl::StrCat(step.field, ".split"));
  if (!split.ok()) return split.status();
  pre_tokenizer.mark_spaces = true;
  pre_tokenizer.prefix = *prefix;
  if (*split) pre_tokenizer.split_rules.push_back(SplitRule::kSpaceMarks);
  return absl::OkStatus();
}

absl::Status ReadFallbackSteps(const std::vector<PipelineStep>& steps,
                               bool spaces_are_marked,
                               PreTokenizer& pre_tokenizer) {
  if (steps.empty()) return absl::OkStatus();
  const PipelineStep& step = steps.front();
  if (steps.size() == 1 && step.type == "Metaspace") {
    return ReadMetaspace(step, pre_tokenizer);
  }
  // Gemma's files split at spaces of which the normalizer has left none.
  if (steps.size() == 1 && step.type == "Split" && spaces_are_marked) {
    const absl::StatusOr<std::string> pattern = ReadLiteralPattern(step);
    if (!pattern.ok()) return pattern.status();
    const absl::StatusOr<bool> invert =
        ReadBool(*step.json, "invert", /*if_absent=*/false,
                 absl::StrCat(step.field, ".invert"));
    if (!invert.ok()) return invert.status();
    if (*pattern == " " && !*invert) return absl::OkStatus();
  }
  return UnsupportedStep(step,
                         "one Metaspace is, and a Split at \" \" after a "
                         "normalizer that replaces it");
}

absl::Status ReadPreTokenizer(const Json& root, bool byte_fallback,
                              TextPipeline& pipeline) {
  const auto steps = ReadPipelineSteps(root, "pre_tokenizer", "pretokenizers");
  if (!steps.ok()) return steps.status();
  return byte_fallback
             ? ReadFallbackSteps(*steps, pipeline.normalizer.mark_spaces,
                                 pipeline.pre_tokenizer)
             : ReadByteLevelSteps(*steps, pipeline.pre_tokenizer);
}

// {"type": "Strip", "content": " ", "start": 1, "stop": 0}
absl::Status ReadStrip(const PipelineStep& step, TextPipeline& pipeline) {
  absl::Status content = ExpectText(step, "content", " ");
  if (!content.ok()) return content;
  for (const std::string key : {"start", "stop"}) {
    const std::string field = absl::StrCat(step.field, ".", key);
    const Json* value = FindMember(*step.json, key);
    const absl::StatusOr<int32_t> count =
        ReadIndex(value == nullptr ? Json() : *value, 2, field);
    if (!count.ok()) return count.status();
    if (key == "start") {
      pipeline.strip_leading_space = *count == 1;
    } else if (*count != 0) {
      return InvalidField(field, "is ", *count, "; 0 is supported");
    }
  }
  return absl::OkStatus();
}

// Replace, ByteFallback, Fuse and perhaps Strip: the only decoder there is for
// tokens with byte fallback.
absl::Status ReadFallbackDecoder(const std::vector<PipelineStep>& steps,
                                 TextPipeline& pipeline) {
  constexpr std::string_view kTypes[] = {"Replace", "ByteFallback", "Fuse",
                                         "Strip"};
  if (steps.size() < 3 || steps.size() > 4) {
    return InvalidField("decoder", "has ", steps.size(),
                        " steps; Replace, ByteFallback, Fuse and perhaps "
                        "Strip are supported");
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].type != kTypes[i]) {
      return UnsupportedStep(steps[i],
                             absl::StrCat(std::string(kTypes[i]), " is"));
    }
  }
  absl::Status replace = ExpectReplace(steps[0], kSpaceMark, " ");
  if (!replace.ok() || steps.size() == 3) return replace;
  return ReadStrip(steps[3], pipeline);
}

absl::Status ReadDecoder(const Json& root, bool byte_fallback,
                         TextPipeline& pipeline) {
  const auto steps = ReadPipelineSteps(root, "decoder", "decoders");
  if (!steps.ok()) return steps.status();
  if (byte_fallback) return ReadFallbackDecoder(*steps, pipeline);
  if (steps->size() != 1) {
    return InvalidField("decoder", "has ", steps->size(),
                        " steps; one ByteLevel is supported");
  }
  const PipelineStep& step = steps->front();
  if (step.type != "ByteLevel") return UnsupportedStep(step, "ByteLevel is");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TextPipeline> ReadTextPipeline(const Json& root,
                                              bool byte_fallback,
                                              int32_t max_vocabulary) {
  TextPipeline pipeline;
  absl::Status status =
      ReadNormalizer(root, byte_fallback, pipeline.normalizer);
  if (status.ok()) status = ReadPreTokenizer(root, byte_fallback, pipeline);
  if (status.ok()) status = ReadPostProcessor(root, max_vocabulary, pipeline);
  if (status.ok()) status = ReadDecoder(root, byte_fallback, pipeline);
  if (!status.ok()) return status;
  return pipeline;
}

}  // namespace headcount
