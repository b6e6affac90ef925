#include "engine/generation.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/check.h"

namespace headcount {
namespace {

std::vector<int32_t> StopIds(const SamplingParams& sampling,
                             const std::vector<int32_t>& eos_ids) {
  std::vector<int32_t> ids = sampling.stop_ids;
  if (!sampling.ignore_eos) {
    ids.insert(ids.end(), eos_ids.begin(), eos_ids.end());
  }
  return ids;
}

}  // namespace

Generation::Generation(const Request& request,
                       const std::vector<int32_t>& eos_ids,
                       const Tokenizer* tokenizer,
                       std::shared_ptr<RequestSink> sink, absl::Time submitted)
    : sampling_(request.sampling),
      candidates_(request.candidates),
      num_scored_(request.score_from
                      ? request.prompt.size() -
                            static_cast<size_t>(*request.score_from)
                      : 0),
      stop_ids_(StopIds(request.sampling, eos_ids)),
      sink_(std::move(sink)),
      detokenizer_(tokenizer),
      stop_matcher_(request.sampling.stops),
      scores_wanted_(request.score_from.has_value() || !candidates_.empty()) {
  ending_.prompt_tokens = static_cast<int32_t>(request.prompt.size());
  ending_.submitted = submitted;
  ending_.scheduled = absl::InfinitePast();
  ending_.first_token = absl::InfinitePast();
}

void Generation::Start(absl::Time now) {
  if (!started()) ending_.scheduled = now;
}

void Generation::AppendRows(const StepPart& part, int32_t first_row,
                            std::vector<SampleRow>* rows) const {
  const Sequence& sequence = *part.sequence;
  // Index in the sequence of the token that the row's logits are about.
  int32_t next = sequence.computed + part.num_tokens - part.logits_rows + 1;
  for (int32_t row = first_row; row < first_row + part.logits_rows;
       ++row, ++next) {
    if (next < sequence.prompt_tokens) {
      const absl::Span<const int32_t> tokens = sequence.tokens;
      SampleRow& score = rows->emplace_back();
      score.logits_row = row;
      score.scored = tokens.subspan(static_cast<size_t>(next), 1);
      continue;
    }
    if (next == sequence.prompt_tokens && !candidates_.empty()) {
      SampleRow& score = rows->emplace_back();
      score.logits_row = row;
      score.scored = candidates_;
    }
    if (sampling_.max_tokens == 0) continue;
    SampleRow& draw = rows->emplace_back();
    draw.logits_row = row;
    draw.temperature = sampling_.temperature;
    draw.top_k = sampling_.top_k;
    draw.top_p = sampling_.top_p;
    draw.min_p = sampling_.min_p;
    draw.seed = sampling_.seed;
    draw.position = static_cast<uint64_t>(next);
    draw.top_logprobs = sampling_.top_logprobs;
    if (ending_.generated_tokens < sampling_.min_tokens) {
      draw.banned = stop_ids_;
    }
  }
}

StepResult Generation::Take(const StepPart& part,
                            absl::Span<const SampleResult> results,
                            absl::Time now) {
  const SampleResult* drawn = nullptr;
  for (const SampleResult& result : results) {
    if (!result.finite) {
      End(EndCause::kError,
          absl::InternalError("the model gave logits that are not finite"),
          now);
      return {.end = EndCause::kError};
    }
    if (result.scored.empty()) {
      drawn = &result;
    } else if (scores_.prompt_logprobs.size() < num_scored_) {
      scores_.prompt_logprobs.push_back(result.scored.front());
    } else {
      scores_.candidate_logprobs = result.scored;
    }
  }
  const Sequence& sequence = *part.sequence;
  if (sequence.computed + part.num_tokens < sequence.length()) return {};
  scores_due_ = std::exchange(scores_wanted_, false);
  if (sampling_.max_tokens == 0) {
    Finish(EndCause::kLength, now);
    return {.end = EndCause::kLength};
  }
  CHECK(drawn != nullptr) << "nothing was drawn for " << sequence.id;
  if (ending_.generated_tokens == 0) ending_.first_token = now;
  const std::optional<EndCause> cause =
      Accept(*drawn, sequence.length() + 1 == sequence.max_length);
  if (cause) Finish(*cause, now);
  return {.token = drawn->token, .end = cause};
}

void Generation::End(EndCause cause, absl::Status status, absl::Time now) {
  ending_.status = std::move(status);
  Finish(cause, now);
}

void Generation::Deliver() {
  if (std::exchange(scores_due_, false)) {
    sink_->OnScores(std::exchange(scores_, {}));
  }
  if (!output_.tokens.empty() || !output_.text.empty()) {
    sink_->OnOutput(std::exchange(output_, {}));
  }
  if (ended_) sink_->OnEnd(std::move(ending_));
}

std::optional<EndCause> Generation::Accept(const SampleResult& drawn,
                                           bool last) {
  ++ending_.generated_tokens;
  GeneratedToken& token = output_.tokens.emplace_back();
  token.id = drawn.token;
  if (sampling_.logprobs) token.logprob = drawn.logprob;
  for (const TokenLogprob& top : drawn.top) {
    token.top.push_back({top.token, top.logprob});
  }
  if (std::count(stop_ids_.begin(), stop_ids_.end(), token.id) > 0) {
    ending_.stop_id = token.id;
    return EndCause::kStop;
  }
  output_.text += Shown(detokenizer_.Push(token.id));
  if (stop_matcher_.stopped()) {
    ending_.stop_string = *stop_matcher_.matched();
    return EndCause::kStop;
  }
  if (last) return EndCause::kLength;
  return std::nullopt;
}

// What of the next piece of text can be shown.
std::string Generation::Shown(std::string piece) {
  if (ending_.generated_tokens <= sampling_.min_tokens) return piece;
  return stop_matcher_.Push(piece);
}

// Lets out the text that was held back: nothing can follow it.
void Generation::Finish(EndCause cause, absl::Time now) {
  CHECK(!ended_) << "ends twice";
  ended_ = true;
  ending_.cause = cause;
  ending_.ended = now;
  output_.text += Shown(detokenizer_.Finish());
  output_.text += stop_matcher_.Finish();
}

}  // namespace headcount
