#include "server/sampling_validation.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/errors.h"
#include "server/field_checks.h"
#include "server/limits.h"
#include "server/random_bits.h"

namespace headcount {
namespace {

using Ids = std::vector<int32_t>;

absl::Status CheckTopP(float top_p) {
  if (top_p > 0.0f && top_p <= 1.0f) return absl::OkStatus();
  return FieldError("sampling.top_p",
                    absl::StrCat(top_p, " is not over 0 and at most 1"));
}

absl::Status CheckStops(const v1::GenerateRequest& request) {
  absl::Status status =
      CheckCount("stop", request.stop_size(), kMaxStopStrings);
  if (!status.ok()) return status;
  for (int i = 0; i < request.stop_size(); ++i) {
    const size_t bytes = request.stop(i).size();
    if (bytes == 0 || bytes > kMaxStopBytes) {
      return FieldError(
          absl::StrCat("stop[", i, "]"),
          absl::StrCat(bytes, " bytes; from 1 to ", kMaxStopBytes));
    }
  }
  return absl::OkStatus();
}

// The default where the field is absent.
float RepetitionPenalty(const v1::SamplingParams& sampling) {
  return sampling.has_repetition_penalty() ? sampling.repetition_penalty()
                                           : 1.0f;
}

absl::Status CheckLogitBias(const std::map<int32_t, float>& biases,
                            int32_t vocab) {
  constexpr absl::string_view kField = "sampling.logit_bias";
  absl::Status status =
      CheckCount(kField, static_cast<int>(biases.size()), kMaxLogitBiases);
  if (!status.ok()) return status;
  for (const auto& [token, bias] : biases) {
    const std::string entry = absl::StrCat(kField, "[", token, "]");
    if (token < 0 || token >= vocab) {
      return FieldError(
          entry,
          absl::StrCat(token, " is not a token id; from 0 to ", vocab - 1));
    }
    status = CheckRange(entry, bias, -kMaxLogitBias, kMaxLogitBias);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const v1::SamplingParams& sampling, int32_t vocab) {
  return FirstError(
      {CheckRange("sampling.temperature", sampling.temperature(), 0.0f,
                  kMaxTemperature),
       CheckRange("sampling.top_k", sampling.top_k(), 0, vocab),
       sampling.has_top_p() ? CheckTopP(sampling.top_p()) : absl::OkStatus(),
       CheckRange("sampling.min_p", sampling.min_p(), 0.0f, 1.0f),
       CheckRange("sampling.repetition_penalty", RepetitionPenalty(sampling),
                  kMinRepetitionPenalty, kMaxRepetitionPenalty),
       CheckRange("sampling.presence_penalty", sampling.presence_penalty(),
                  -kMaxPenalty, kMaxPenalty),
       CheckRange("sampling.frequency_penalty", sampling.frequency_penalty(),
                  -kMaxPenalty, kMaxPenalty),
       CheckLogitBias(
           {sampling.logit_bias().begin(), sampling.logit_bias().end()},
           vocab)});
}

absl::Status CheckFields(const v1::GenerateRequest& request,
                         const ServedModel& model) {
  const int32_t most_tokens =
      request.has_max_tokens() ? request.max_tokens() : model.max_context;
  return FirstError(
      {CheckSampling(request.sampling(), model.vocab),
       request.has_max_tokens() ? CheckRange("max_tokens", request.max_tokens(),
                                             1, model.max_context)
                                : absl::OkStatus(),
       CheckRange("min_tokens", request.min_tokens(), 0, most_tokens),
       CheckStops(request),
       CheckCount("stop_token_ids", request.stop_token_ids_size(),
                  kMaxStopTokenIds),
       CheckIds("stop_token_ids", request.stop_token_ids(), model.vocab),
       CheckRange("top_logprobs", request.top_logprobs(), 0, kMaxTopLogprobs)});
}

std::string ChoiceField(size_t choice) {
  return absl::StrCat("choices[", choice, "]");
}

// What would end an answer before it is a choice.
absl::Status CheckNothingElseEnds(const v1::GenerateRequest& request) {
  const std::pair<absl::string_view, bool> others[] = {
      {"stop", !request.stop().empty()},
      {"stop_token_ids", !request.stop_token_ids().empty()},
      {"min_tokens", request.min_tokens() != 0},
      {"ignore_eos", request.ignore_eos()}};
  for (const auto& [field, set] : others) {
    if (set) return FieldError(field, "cannot be combined with `choices`");
  }
  return absl::OkStatus();
}

// Whether an answer of `ids` reads as `text`, apart from a space at its start
// that some tokenizers take off.
bool SpelledBy(const Ids& ids, absl::string_view text,
               const Tokenizer& tokenizer) {
  if (tokenizer.strips_leading_space()) absl::ConsumePrefix(&text, " ");
  return tokenizer.Decode(ids) == text;
}

absl::StatusOr<std::vector<Ids>> EncodedChoices(
    const v1::GenerateRequest& request, const ServedModel& model) {
  absl::Status status =
      CheckCount("choices", request.choices_size(), kMaxChoices);
  if (!status.ok()) return status;
  int64_t total = 0;
  std::vector<Ids> choices;
  for (const std::string& choice : request.choices()) {
    const std::string field = ChoiceField(choices.size());
    if (choice.empty() || choice.size() > kMaxChoiceBytes) {
      return FieldError(field, absl::StrCat(choice.size(), " bytes; from 1 to ",
                                            kMaxChoiceBytes));
    }
    absl::StatusOr<Ids> ids =
        EncodedAnswer(field, choice, TextPlace::kAfterText, model);
    if (!ids.ok()) return ids.status();
    if (!SpelledBy(*ids, choice, *model.tokenizer)) {
      return FieldError(field,
                        "the tokenizer changes this text, so that no answer "
                        "could be equal to it");
    }
    total += static_cast<int64_t>(ids->size());
    if (total > kMaxChoiceTokens) {
      return FieldError(field, absl::StrCat("brings the choices over ",
                                            kMaxChoiceTokens, " tokens"));
    }
    choices.push_back(*std::move(ids));
  }
  return choices;
}

// Refuses choices that no tokens tell apart.
absl::Status CheckDifferent(const std::vector<Ids>& choices,
                            const ServedModel& model) {
  std::vector<size_t> order(choices.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return choices[a] < choices[b]; });
  // What a choice begins comes right after it.
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    const Ids& choice = choices[order[i]];
    const Ids& next = choices[order[i + 1]];
    if (choice == next) {
      return FieldError(
          ChoiceField(order[i + 1]),
          absl::StrCat("has the tokens of ", ChoiceField(order[i])));
    }
    if (!model.eos_ids.empty() || choice.size() > next.size() ||
        !std::equal(choice.begin(), choice.end(), next.begin())) {
      continue;
    }
    return FieldError(
        ChoiceField(order[i]),
        absl::StrCat("begins ", ChoiceField(order[i + 1]), ", and '",
                     model.name,
                     "' has no end-of-text token to tell them apart"));
  }
  return absl::OkStatus();
}

absl::Status AddChoices(const v1::GenerateRequest& request,
                        const ServedModel& model, SamplingParams* sampling) {
  absl::Status status = CheckNothingElseEnds(request);
  if (!status.ok()) return status;
  absl::StatusOr<std::vector<Ids>> choices = EncodedChoices(request, model);
  if (!choices.ok()) return choices.status();
  status = CheckDifferent(*choices, model);
  if (!status.ok()) return status;
  // Enough also for an end of text after a choice that begins another.
  size_t longest = 0;
  for (const Ids& choice : *choices) longest = std::max(longest, choice.size());
  const auto needed = static_cast<int32_t>(longest);
  if (request.has_max_tokens() && request.max_tokens() < needed) {
    return FieldError(
        "max_tokens",
        absl::StrCat(request.max_tokens(), "; the longest of `choices` takes ",
                     needed));
  }
  if (!request.has_max_tokens()) sampling->max_tokens = needed;
  sampling->choices = *std::move(choices);
  return absl::OkStatus();
}

// A bias that bans becomes infinite.
std::map<int32_t, float> LogitBias(const v1::SamplingParams& sampling) {
  std::map<int32_t, float> biases(sampling.logit_bias().begin(),
                                  sampling.logit_bias().end());
  for (auto& [token, bias] : biases) {
    if (bias == -kMaxLogitBias) bias = -std::numeric_limits<float>::infinity();
  }
  return biases;
}

SamplingParams Converted(const v1::GenerateRequest& request) {
  const v1::SamplingParams& sampling = request.sampling();
  return {
      .temperature = sampling.temperature(),
      .top_k = sampling.top_k(),
      .top_p = sampling.has_top_p() ? sampling.top_p() : 1.0f,
      .min_p = sampling.min_p(),
      .repetition_penalty = RepetitionPenalty(sampling),
      .frequency_penalty = sampling.frequency_penalty(),
      .presence_penalty = sampling.presence_penalty(),
      .logit_bias = LogitBias(sampling),
      .seed = sampling.has_seed() ? sampling.seed() : RandomBits(),
      .max_tokens = request.max_tokens(),
      .min_tokens = request.min_tokens(),
      .ignore_eos = request.ignore_eos(),
      .stop_ids =
          Ids(request.stop_token_ids().begin(), request.stop_token_ids().end()),
      .stops = {request.stop().begin(), request.stop().end()},
      .choices = {},
      .logprobs = request.logprobs() || request.top_logprobs() > 0,
      .top_logprobs = request.top_logprobs(),
  };
}

}  // namespace

absl::StatusOr<SamplingParams> ToSamplingParams(
    const v1::GenerateRequest& request, const ServedModel& model) {
  absl::Status status = CheckFields(request, model);
  if (!status.ok()) return status;
  SamplingParams sampling = Converted(request);
  if (request.choices().empty()) return sampling;
  status = AddChoices(request, model, &sampling);
  if (!status.ok()) return status;
  return sampling;
}

}  // namespace headcount
