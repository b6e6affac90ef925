// Requests that score: a continuation, candidates, or labels after a prompt.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/errors.h"
#include "server/field_checks.h"
#include "server/limits.h"
#include "server/validation.h"

namespace headcount {
namespace {

using Ids = std::vector<int32_t>;

// The tokens before the continuation.
absl::StatusOr<Ids> ScorePrompt(const v1::ScoreRequest& request,
                                const ServedModel& model) {
  switch (request.prompt_case()) {
    case v1::ScoreRequest::kPromptTokens:
      return CheckedIds("prompt_tokens.ids", request.prompt_tokens(), model);
    case v1::ScoreRequest::kPromptText:
      return EncodedPrompt("prompt_text", request.prompt_text(), model);
    case v1::ScoreRequest::PROMPT_NOT_SET:
      break;
  }
  return Ids();
}

TextPlace PlaceOfContinuation(const v1::ScoreRequest& request) {
  const bool first =
      request.prompt_text().empty() && request.prompt_tokens().ids().empty();
  return first ? TextPlace::kStart : TextPlace::kAfterText;
}

absl::StatusOr<Ids> Continuation(const v1::ScoreRequest& request,
                                 const ServedModel& model) {
  switch (request.continuation_case()) {
    case v1::ScoreRequest::kContinuationTokens:
      return GivenIds("continuation_tokens", request.continuation_tokens(),
                      model);
    case v1::ScoreRequest::kContinuationText:
      return EncodedAnswer("continuation_text", request.continuation_text(),
                           PlaceOfContinuation(request), model);
    case v1::ScoreRequest::CONTINUATION_NOT_SET:
      break;
  }
  return FieldError("continuation",
                    "missing; set continuation_text, continuation_tokens or "
                    "candidates");
}

absl::StatusOr<Ids> Candidate(const std::string& field,
                              const v1::ScoreCandidate& candidate,
                              TextPlace place, const ServedModel& model) {
  switch (candidate.continuation_case()) {
    case v1::ScoreCandidate::kTokens:
      return GivenIds(field + ".tokens", candidate.tokens(), model);
    case v1::ScoreCandidate::kText:
      return EncodedAnswer(field + ".text", candidate.text(), place, model);
    case v1::ScoreCandidate::CONTINUATION_NOT_SET:
      break;
  }
  return FieldError(field, "missing; set text or tokens");
}

absl::StatusOr<std::vector<Ids>> Candidates(const v1::ScoreRequest& request,
                                            const ServedModel& model) {
  if (request.continuation_case() != v1::ScoreRequest::CONTINUATION_NOT_SET) {
    return FieldError("candidates", "cannot be combined with a continuation");
  }
  const absl::Status status =
      CheckCount("candidates", request.candidates_size(), kMaxScoreCandidates);
  if (!status.ok()) return status;
  std::vector<Ids> candidates;
  for (int i = 0; i < request.candidates_size(); ++i) {
    absl::StatusOr<Ids> ids =
        Candidate(absl::StrCat("candidates[", i, "]"), request.candidates(i),
                  PlaceOfContinuation(request), model);
    if (!ids.ok()) return ids.status();
    candidates.push_back(*std::move(ids));
  }
  return candidates;
}

// Without a prompt, the first token of the continuation takes its place.
Request WholeText(Ids tokens) {
  Request result;
  if (tokens.size() > 1) {
    result.continuations.emplace_back(tokens.begin() + 1, tokens.end());
  }
  tokens.resize(1);
  result.prompt = std::move(tokens);
  return result;
}

absl::StatusOr<Request> ScoreTokens(const v1::ScoreRequest& request,
                                    const ServedModel& model) {
  // The continuations first: they are what must be there.
  Request result;
  if (request.candidates().empty()) {
    absl::StatusOr<Ids> continuation = Continuation(request, model);
    if (!continuation.ok()) return continuation.status();
    result.continuations.push_back(*std::move(continuation));
  } else {
    absl::StatusOr<std::vector<Ids>> candidates = Candidates(request, model);
    if (!candidates.ok()) return candidates.status();
    result.continuations = *std::move(candidates);
  }
  absl::StatusOr<Ids> prompt = ScorePrompt(request, model);
  if (!prompt.ok()) return prompt.status();
  result.prompt = *std::move(prompt);
  if (!result.prompt.empty()) return result;
  if (request.candidates().empty()) {
    return WholeText(std::move(result.continuations.front()));
  }
  return FieldError("prompt",
                    "has no tokens; candidates follow at least one, such as "
                    "the tokenizer's token for the beginning of a text");
}

}  // namespace

absl::StatusOr<Request> ToEngineRequest(const v1::ScoreRequest& request,
                                        const ServedModel& model) {
  absl::StatusOr<Request> result = ScoreTokens(request, model);
  if (!result.ok()) return result;
  const int64_t tokens =
      static_cast<int64_t>(result->prompt.size()) + MaxNewTokens(*result);
  if (tokens > model.max_context) {
    return TooLong(request.candidates().empty() ? "continuation" : "candidates",
                   tokens, model);
  }
  const absl::Status common = FillCommon(request, model, &*result);
  if (!common.ok()) return common;
  return result;
}

absl::Status CheckClassifies(const ServedModel& model) {
  if (model.classify.has_value()) return absl::OkStatus();
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          "model '", model.name, "' has no `classify` in its configuration")),
      Reason::kNotOffered);
}

absl::StatusOr<std::vector<Request>> ToEngineRequests(
    const v1::ClassifyRequest& request, const ServedModel& model) {
  absl::Status status = CheckClassifies(model);
  if (!status.ok()) return status;
  if (request.inputs().empty()) {
    return FieldError("inputs", "empty; at least one");
  }
  status = CheckCount("inputs", request.inputs_size(), kMaxClassifyInputs);
  if (!status.ok()) return status;
  Request common;
  status = FillCommon(request, model, &common);
  if (!status.ok()) return status;
  for (const ClassifySetup::Label& label : model.classify->labels) {
    common.continuations.push_back(label.ids);
  }

  int64_t total = 0;
  std::vector<Request> requests;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const std::string field = absl::StrCat("inputs[", i, "]");
    status = CheckTextBytes(field, request.inputs(i), model);
    if (!status.ok()) return status;
    Request& next = requests.emplace_back(common);
    next.prompt =
        model.classify->prompt.Render(request.inputs(i), *model.tokenizer);
    if (next.prompt.empty()) return FieldError(field, "empty");
    const int64_t tokens =
        static_cast<int64_t>(next.prompt.size()) + MaxNewTokens(next);
    if (tokens > model.max_context) return TooLong(field, tokens, model);
    total += GivenTokens(next);
    if (total > kMaxClassifyTokens) {
      return FieldError(
          field, absl::StrCat("brings the call over ", kMaxClassifyTokens,
                              " tokens; send fewer inputs"));
    }
  }
  return requests;
}

}  // namespace headcount
