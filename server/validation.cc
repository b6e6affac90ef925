#include "server/validation.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/errors.h"
#include "server/limits.h"
#include "server/random_bits.h"

namespace headcount {
namespace {

using Ids = std::vector<int32_t>;

absl::Status FirstError(std::initializer_list<absl::Status> checks) {
  for (const absl::Status& status : checks) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// NaN is in no range.
template <typename T>
absl::Status CheckRange(absl::string_view field, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return FieldError(field,
                    absl::StrCat(value, " is not from ", low, " to ", high));
}

absl::Status CheckTopP(float top_p) {
  if (top_p > 0.0f && top_p <= 1.0f) return absl::OkStatus();
  return FieldError("sampling.top_p",
                    absl::StrCat(top_p, " is not over 0 and at most 1"));
}

absl::Status CheckCount(absl::string_view field, int count, int most) {
  if (count <= most) return absl::OkStatus();
  return FieldError(field, absl::StrCat(count, " entries; at most ", most));
}

absl::Status CheckIds(absl::string_view field, absl::Span<const int32_t> ids,
                      int32_t vocab) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab) {
      return FieldError(
          absl::StrCat(field, "[", i, "]"),
          absl::StrCat(ids[i], " is not a token id; from 0 to ", vocab - 1));
    }
  }
  return absl::OkStatus();
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

absl::Status CheckSampling(const v1::SamplingParams& sampling, int32_t vocab) {
  return FirstError(
      {CheckRange("sampling.temperature", sampling.temperature(), 0.0f,
                  kMaxTemperature),
       CheckRange("sampling.top_k", sampling.top_k(), 0, vocab),
       sampling.has_top_p() ? CheckTopP(sampling.top_p()) : absl::OkStatus(),
       CheckRange("sampling.min_p", sampling.min_p(), 0.0f, 1.0f)});
}

// What can be told of a generation without its prompt.
absl::Status CheckGeneration(const v1::GenerateRequest& request,
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

absl::Status TooLong(absl::string_view field, int64_t tokens,
                     const ServedModel& model) {
  return FieldError(field,
                    absl::StrCat(tokens, " tokens; the context of '",
                                 model.name, "' is ", model.max_context),
                    Reason::kTooLong);
}

// Refuses text that would be over the context however well it is tokenised.
absl::Status CheckTextBytes(absl::string_view field, absl::string_view text,
                            const ServedModel& model) {
  const int64_t most = int64_t{kMaxPromptBytesPerToken} * model.max_context;
  if (static_cast<int64_t>(text.size()) <= most) return absl::OkStatus();
  return FieldError(
      field,
      absl::StrCat(text.size(), " bytes; at most ", most, ", which is ",
                   kMaxPromptBytesPerToken, " for each token of the context"),
      Reason::kTooLong);
}

absl::StatusOr<Ids> CheckedIds(absl::string_view field,
                               const v1::TokenIds& tokens,
                               const ServedModel& model) {
  if (tokens.ids_size() > model.max_context) {
    return TooLong(field, tokens.ids_size(), model);
  }
  const absl::Status status = CheckIds(field, tokens.ids(), model.vocab);
  if (!status.ok()) return status;
  return Ids(tokens.ids().begin(), tokens.ids().end());
}

absl::StatusOr<Ids> Encoded(absl::string_view field, const std::string& text,
                            const ServedModel& model) {
  const absl::Status status = CheckTextBytes(field, text, model);
  if (!status.ok()) return status;
  return model.tokenizer->Encode(text);
}

void AppendSpan(absl::Span<const int32_t> from, Ids* to) {
  to->insert(to->end(), from.begin(), from.end());
}

absl::StatusOr<Ids> GeneratePrompt(const v1::GenerateRequest& request,
                                   const ServedModel& model) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kTokens:
      if (request.tokens().ids().empty()) {
        return FieldError("tokens.ids", "empty; at least one token");
      }
      return CheckedIds("tokens.ids", request.tokens(), model);
    case v1::GenerateRequest::kText: {
      if (request.text().empty()) return FieldError("text", "empty");
      absl::StatusOr<Ids> ids = Encoded("text", request.text(), model);
      if (!ids.ok()) return ids;
      Ids prompt;
      AppendSpan(model.tokenizer->prefix(), &prompt);
      AppendSpan(*ids, &prompt);
      AppendSpan(model.tokenizer->suffix(), &prompt);
      if (prompt.empty()) return FieldError("text", "has no tokens");
      return prompt;
    }
    case v1::GenerateRequest::PROMPT_NOT_SET:
      break;
  }
  return FieldError("prompt", "missing; set text or tokens");
}

SamplingParams ToSamplingParams(const v1::GenerateRequest& request) {
  const v1::SamplingParams& sampling = request.sampling();
  return {
      .temperature = sampling.temperature(),
      .top_k = sampling.top_k(),
      .top_p = sampling.has_top_p() ? sampling.top_p() : 1.0f,
      .min_p = sampling.min_p(),
      .seed = sampling.has_seed() ? sampling.seed() : RandomBits(),
      .max_tokens = request.max_tokens(),
      .min_tokens = request.min_tokens(),
      .ignore_eos = request.ignore_eos(),
      .stop_ids =
          Ids(request.stop_token_ids().begin(), request.stop_token_ids().end()),
      .stops = {request.stop().begin(), request.stop().end()},
      .logprobs = request.logprobs() || request.top_logprobs() > 0,
      .top_logprobs = request.top_logprobs(),
  };
}

// The tokens before the continuation.
absl::StatusOr<Ids> ScorePrompt(const v1::ScoreRequest& request,
                                const ServedModel& model) {
  switch (request.prompt_case()) {
    case v1::ScoreRequest::kPromptTokens:
      return CheckedIds("prompt_tokens.ids", request.prompt_tokens(), model);
    case v1::ScoreRequest::kPromptText: {
      absl::StatusOr<Ids> ids =
          Encoded("prompt_text", request.prompt_text(), model);
      if (!ids.ok()) return ids;
      Ids prompt;
      AppendSpan(model.tokenizer->prefix(), &prompt);
      AppendSpan(*ids, &prompt);
      return prompt;
    }
    case v1::ScoreRequest::PROMPT_NOT_SET:
      break;
  }
  return Ids();
}

absl::StatusOr<Ids> Continuation(const v1::ScoreRequest& request,
                                 const ServedModel& model) {
  switch (request.continuation_case()) {
    case v1::ScoreRequest::kContinuationTokens:
      if (request.continuation_tokens().ids().empty()) {
        return FieldError("continuation_tokens.ids", "empty; at least one");
      }
      return CheckedIds("continuation_tokens.ids",
                        request.continuation_tokens(), model);
    case v1::ScoreRequest::kContinuationText:
      if (request.continuation_text().empty()) {
        return FieldError("continuation_text", "empty");
      }
      return Encoded("continuation_text", request.continuation_text(), model);
    case v1::ScoreRequest::CONTINUATION_NOT_SET:
      break;
  }
  return FieldError("continuation",
                    "missing; set continuation_text or continuation_tokens");
}

Request EngineRequest(const ServedModel& model, Ids prompt) {
  Request request;
  request.model = model.index;
  request.prompt = std::move(prompt);
  return request;
}

// Appends the engine's requests for one rendered input.
void AppendClassify(Ids prompt, const ServedModel& model,
                    std::vector<Request>* requests) {
  const ClassifySetup& setup = *model.classify;
  if (LabelsAreCandidates(setup)) {
    Request request = EngineRequest(model, std::move(prompt));
    for (const ClassifySetup::Label& label : setup.labels) {
      request.candidates.push_back(label.ids[0]);
    }
    requests->push_back(std::move(request));
    return;
  }
  for (const ClassifySetup::Label& label : setup.labels) {
    Request request = EngineRequest(model, prompt);
    request.score_from = static_cast<int32_t>(prompt.size());
    AppendSpan(label.ids, &request.prompt);
    requests->push_back(std::move(request));
  }
}

// Tokens of labels in a sequence: none where they are only candidates.
int64_t LongestLabel(const ClassifySetup& setup) {
  if (LabelsAreCandidates(setup)) return 0;
  size_t longest = 0;
  for (const ClassifySetup::Label& label : setup.labels) {
    longest = std::max(longest, label.ids.size());
  }
  return static_cast<int64_t>(longest);
}

}  // namespace

absl::StatusOr<Request> ToEngineRequest(const v1::GenerateRequest& request,
                                        const ServedModel& model) {
  const absl::Status status = CheckGeneration(request, model);
  if (!status.ok()) return status;
  absl::StatusOr<Ids> prompt = GeneratePrompt(request, model);
  if (!prompt.ok()) return prompt.status();
  const auto tokens = static_cast<int64_t>(prompt->size());
  const int64_t left = model.max_context - tokens;
  if (left < 1) {
    return TooLong(request.has_text() ? "text" : "tokens.ids", tokens, model);
  }
  if (request.max_tokens() > left) {
    return FieldError(
        "max_tokens",
        absl::StrCat(request.max_tokens(), " after a prompt of ", tokens,
                     " tokens; the context of '", model.name, "' is ",
                     model.max_context, ", so at most ", left),
        Reason::kTooLong);
  }
  Request result = EngineRequest(model, *std::move(prompt));
  result.sampling = ToSamplingParams(request);
  if (!request.has_max_tokens()) {
    result.sampling.max_tokens = static_cast<int32_t>(left);
  }
  return result;
}

absl::StatusOr<Request> ToEngineRequest(const v1::ScoreRequest& request,
                                        const ServedModel& model) {
  // The continuation first: it is what must be there.
  absl::StatusOr<Ids> continuation = Continuation(request, model);
  if (!continuation.ok()) return continuation.status();
  absl::StatusOr<Ids> prompt = ScorePrompt(request, model);
  if (!prompt.ok()) return prompt.status();

  Request result = EngineRequest(model, *std::move(prompt));
  const size_t first = std::max<size_t>(result.prompt.size(), 1);
  AppendSpan(*continuation, &result.prompt);
  const auto tokens = static_cast<int64_t>(result.prompt.size());
  if (tokens == 0) return FieldError("continuation_text", "has no tokens");
  if (tokens > model.max_context) {
    return TooLong("continuation", tokens, model);
  }
  if (first < result.prompt.size()) {
    result.score_from = static_cast<int32_t>(first);
  }
  return result;
}

size_t SequencesPerInput(const ClassifySetup& setup) {
  return LabelsAreCandidates(setup) ? 1 : setup.labels.size();
}

bool LabelsAreCandidates(const ClassifySetup& setup) {
  for (const ClassifySetup::Label& label : setup.labels) {
    if (label.ids.size() != 1) return false;
  }
  return true;
}

absl::StatusOr<std::vector<Request>> ToEngineRequests(
    const v1::ClassifyRequest& request, const ServedModel& model) {
  if (!model.classify.has_value()) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "model '", model.name, "' has no `classify` in its configuration")),
        Reason::kNotOffered);
  }
  if (request.inputs().empty()) {
    return FieldError("inputs", "empty; at least one");
  }
  absl::Status status =
      CheckCount("inputs", request.inputs_size(), kMaxClassifyInputs);
  if (!status.ok()) return status;

  const int64_t label_tokens = LongestLabel(*model.classify);
  const size_t sequences = SequencesPerInput(*model.classify);
  int64_t total = 0;
  std::vector<Request> requests;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const std::string field = absl::StrCat("inputs[", i, "]");
    status = CheckTextBytes(field, request.inputs(i), model);
    if (!status.ok()) return status;
    Ids prompt =
        model.classify->prompt.Render(request.inputs(i), *model.tokenizer);
    if (prompt.empty()) return FieldError(field, "empty");
    const int64_t tokens = static_cast<int64_t>(prompt.size()) + label_tokens;
    if (tokens > model.max_context) return TooLong(field, tokens, model);
    total += tokens * static_cast<int64_t>(sequences);
    if (total > kMaxClassifyTokens) {
      return FieldError(
          field, absl::StrCat("brings the call over ", kMaxClassifyTokens,
                              " tokens; send fewer inputs"));
    }
    AppendClassify(std::move(prompt), model, &requests);
  }
  return requests;
}

absl::Status CheckTokenizeRequest(const v1::TokenizeRequest& request) {
  if (request.text().size() <= kMaxTokenizeBytes) return absl::OkStatus();
  return FieldError("text",
                    absl::StrCat(request.text().size(), " bytes; at most ",
                                 kMaxTokenizeBytes));
}

absl::Status CheckDetokenizeRequest(const v1::DetokenizeRequest& request,
                                    const ServedModel& model) {
  return FirstError({CheckCount("ids", request.ids_size(), kMaxDetokenizeIds),
                     CheckIds("ids", request.ids(), model.vocab)});
}

}  // namespace headcount
