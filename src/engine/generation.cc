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

std::vector<TokenBias> Biases(const std::map<int32_t, float>& logit_bias) {
  std::vector<TokenBias> biases;
  biases.reserve(logit_bias.size());
  for (const auto& [token, bias] : logit_bias) biases.push_back({token, bias});
  return biases;
}

std::vector<int32_t> FirstTokens(
    const std::vector<std::vector<int32_t>>& continuations) {
  std::vector<int32_t> first;
  first.reserve(continuations.size());
  for (const std::vector<int32_t>& tokens : continuations) {
    first.push_back(tokens.front());
  }
  return first;
}

// The tokens of a prompt, each once, in rising order. A prompt may have them in
// the worst one.
std::vector<TokenUse> UsesIn(std::vector<int32_t> prompt) {
  std::sort(prompt.begin(), prompt.end());
  prompt.erase(std::unique(prompt.begin(), prompt.end()), prompt.end());
  std::vector<TokenUse> uses;
  uses.reserve(prompt.size());
  for (const int32_t token : prompt) uses.push_back({.token = token});
  return uses;
}

bool Penalises(const SamplingParams& sampling) {
  return sampling.repetition_penalty != 1.0f ||
         sampling.frequency_penalty != 0.0f ||
         sampling.presence_penalty != 0.0f;
}

}  // namespace

Generation::Generation(const Request& request,
                       const std::vector<int32_t>& eos_ids,
                       const Tokenizer* tokenizer,
                       std::shared_ptr<RequestSink> sink, absl::Time submitted)
    : model_(request.model),
      sampling_(request.sampling),
      head_gates_(request.head_gates),
      first_scored_(FirstTokens(request.continuations)),
      kept_rows_(request.kept_rows),
      reference_rows_(request.reference_rows),
      statistics_(request.statistics),
      statistics_from_(request.statistics_skip),
      kept_inputs_(request.kept_inputs),
      inputs_(request.inputs),
      first_layer_(request.first_layer),
      stop_ids_(StopIds(request.sampling, eos_ids)),
      biases_(Biases(request.sampling.logit_bias)),
      sink_(std::move(sink)),
      choices_(request.sampling.choices, eos_ids),
      detokenizer_(tokenizer),
      stop_matcher_(request.sampling.stops) {
  scores_.logprobs.resize(first_scored_.size());
  if (Penalises(sampling_)) uses_ = UsesIn(request.prompt);
  ending_.prompt_tokens = static_cast<int32_t>(GivenTokens(request));
  ending_.submitted = submitted;
  ending_.scheduled = absl::InfinitePast();
  ending_.first_token = absl::InfinitePast();
}

void Generation::Start(int32_t cached_tokens, absl::Time now) {
  if (started()) return;
  ending_.scheduled = now;
  ending_.cached_tokens = cached_tokens;
}

void Generation::AppendRows(const StepPart& part, int32_t first_row,
                            std::vector<SampleRow>* rows) const {
  const Sequence& sequence = *part.sequence;
  // Index in the sequence of the token that the row's logits are about.
  int32_t index = sequence.computed + part.num_tokens - part.logits_rows + 1;
  for (int32_t row = first_row; row < first_row + part.logits_rows;
       ++row, ++index) {
    if (sampling_.max_tokens == 0 && first_scored_.empty()) continue;
    rows->push_back(sampling_.max_tokens > 0 ? DrawRow(index)
                                             : ScoreRow(sequence, index));
    rows->back().logits_row = row;
  }
}

// Right after the prompt all continuations are scored at once.
SampleRow Generation::ScoreRow(const Sequence& sequence, int32_t index) const {
  SampleRow row;
  row.scored = first_scored_;
  if (index > sequence.prompt_tokens) {
    const absl::Span<const int32_t> tokens =
        sequence.continuations[sequence.continuation];
    row.scored =
        tokens.subspan(static_cast<size_t>(index - sequence.prompt_tokens), 1);
  }
  const auto place = static_cast<size_t>(index - sequence.prompt_tokens);
  if (kept_rows_ != nullptr) row.kept = kept_rows_->Row(place);
  if (reference_rows_ != nullptr) row.reference = reference_rows_->Row(place);
  return row;
}

SampleRow Generation::DrawRow(int32_t index) const {
  SampleRow row;
  row.repetition_penalty = sampling_.repetition_penalty;
  row.frequency_penalty = sampling_.frequency_penalty;
  row.presence_penalty = sampling_.presence_penalty;
  row.uses = uses_;
  row.biases = biases_;
  row.allowed = choices_.allowed();
  if (ending_.generated_tokens < sampling_.min_tokens) row.banned = stop_ids_;
  row.temperature = sampling_.temperature;
  row.top_k = sampling_.top_k;
  row.top_p = sampling_.top_p;
  row.min_p = sampling_.min_p;
  row.seed = sampling_.seed;
  row.position = static_cast<uint64_t>(index);
  row.top_logprobs = sampling_.top_logprobs;
  return row;
}

StepResult Generation::Take(const StepPart& part,
                            absl::Span<const SampleResult> results,
                            absl::Time now) {
  const Sequence& sequence = *part.sequence;
  statistics_from_ =
      std::max(statistics_from_, sequence.computed + part.num_tokens);
  for (const SampleResult& result : results) {
    if (!result.finite) {
      End(EndCause::kError,
          absl::InternalError("the model gave logits that are not finite"),
          now);
      return {.end = EndCause::kError};
    }
    TakeScores(sequence, result);
  }
  if (sequence.computed + part.num_tokens < sequence.length()) return {};
  if (sampling_.max_tokens == 0) {
    const size_t next = sequence.LongContinuation(sequence.continuation + 1);
    if (next < sequence.continuations.size()) return {.continuation = next};
    scores_due_ = !first_scored_.empty();
    Finish(EndCause::kLength, now);
    return {.end = EndCause::kLength};
  }
  CHECK(results.size() == 1) << results.size() << " draws for " << sequence.id;
  const SampleResult& drawn = results.front();
  if (drawn.token < 0) {
    End(EndCause::kError,
        absl::InvalidArgumentError(
            "sampling.logit_bias: leaves no token that could come next"),
        now);
    return {.end = EndCause::kError};
  }
  if (ending_.generated_tokens == 0) ending_.first_token = now;
  const std::optional<EndCause> cause =
      Accept(drawn, sequence.length() + 1 == sequence.max_length);
  if (cause) Finish(*cause, now);
  return {.token = drawn.token, .end = cause};
}

void Generation::TakeScores(const Sequence& sequence,
                            const SampleResult& result) {
  if (result.scored.empty()) return;
  if (reference_rows_ != nullptr) {
    scores_.divergences.push_back(result.divergence);
  }
  if (scores_.logprobs.front().empty()) {
    for (size_t i = 0; i < result.scored.size(); ++i) {
      scores_.logprobs[i].push_back(result.scored[i]);
    }
    return;
  }
  scores_.logprobs[sequence.continuation].push_back(result.scored.front());
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
  if (!sampling_.choices.empty()) {
    choices_.Push(token.id);
    ending_.choice = choices_.chosen();
  }
  if (std::count(stop_ids_.begin(), stop_ids_.end(), token.id) > 0) {
    ending_.stop_id = token.id;
    return EndCause::kStop;
  }
  if (Penalises(sampling_)) CountUse(token.id, 1);
  output_.text += Shown(detokenizer_.Push(token.id));
  if (stop_matcher_.stopped()) {
    ending_.stop_string = *stop_matcher_.matched();
    return EndCause::kStop;
  }
  if (ending_.choice) return EndCause::kStop;
  if (last) return EndCause::kLength;
  return std::nullopt;
}

void Generation::CountUse(int32_t token, int32_t generated) {
  auto use = std::lower_bound(
      uses_.begin(), uses_.end(), token,
      [](const TokenUse& a, int32_t id) { return a.token < id; });
  if (use == uses_.end() || use->token != token) {
    use = uses_.insert(use, {.token = token});
  }
  use->generated += generated;
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
