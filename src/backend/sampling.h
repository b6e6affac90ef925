// Drawing a token, and the log-probabilities of tokens. An operation of the
// backend with a counter-based generator, so that every backend draws the same
// token from the same logits.
//
// What is done to the logits before a token is drawn, in this order, which is
// our own: other servers differ in where bias and min-p come.
//   1. repetition penalty (Keskar et al. 2019, arXiv:1909.05858, in the form of
//      Hugging Face: what is below 0 is multiplied), then frequency and
//      presence penalty (OpenAI's);
//   2. bias;
//   3. tokens that are banned, or not among those allowed, are taken out;
//   4. temperature, top-k, top-p, min-p.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backend/sampling_math.h"

namespace headcount {

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural log of softmax of the model's own logits
};

// Spans of tokens are by rising id, each id once; all are of the vocabulary.
struct SampleRow {
  int32_t logits_row = 0;

  // Logits of all `uses`: over 0, divided by this; else multiplied.
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;  // subtracted for each time in the answer
  float presence_penalty = 0.0f;   // subtracted if it is in the answer
  absl::Span<const TokenUse> uses;

  absl::Span<const TokenBias> biases;
  absl::Span<const int32_t> allowed;  // empty: all
  absl::Span<const int32_t> banned;   // in any order

  // 0 is greedy: the highest logit, the lowest id among equals.
  float temperature = 0;
  int32_t top_k = 0;   // 0: all
  float top_p = 1.0f;  // smallest set whose probability reaches top_p
  float min_p = 0.0f;  // times the highest probability
  uint64_t seed = 0;
  uint64_t position = 0;  // of the drawn token: the generator's counter

  int32_t top_logprobs = 0;  // how many of the highest to report

  // If not empty, nothing is drawn: the log-probabilities of these tokens, in
  // any order, are reported instead.
  absl::Span<const int32_t> scored;

  // On the host, both [vocab] or empty. `kept` is filled with the
  // log-probabilities of all tokens; `reference` holds such a row, and the
  // distance from it is reported.
  absl::Span<float> kept = {};
  absl::Span<const float> reference = {};
};

struct SampleResult {
  int32_t token = -1;  // -1: none may be drawn
  float logprob = 0;
  std::vector<TokenLogprob> top;  // highest first
  std::vector<float> scored;      // [SampleRow::scored]
  // Kullback-Leibler divergence KL(reference || softmax of the logits), in nats
  // (Kullback & Leibler 1951). 0 for a reference kept from the same logits.
  double divergence = 0;
  // False: a logit was NaN or +inf, or all were -inf.
  bool finite = true;
};

// Memory that is reused between calls.
struct SampleScratch {
  std::vector<float> logits;
  std::vector<TokenLogprob> entries;
};

// The reference, on the host; the CPU backend runs it over its thread pool.
// logits: [vocab].
SampleResult SampleOne(absl::Span<const float> logits, const SampleRow& row,
                       SampleScratch* scratch);

}  // namespace headcount
