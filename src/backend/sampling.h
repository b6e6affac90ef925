// Drawing a token, and the log-probabilities of tokens. An operation of the
// backend with a counter-based generator, so that every backend draws the same
// token from the same logits.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace headcount {

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;  // natural log of softmax of the unscaled logits
};

struct SampleRow {
  int32_t logits_row = 0;

  // 0 is greedy: the highest logit, the lowest id among equals. Otherwise the
  // filters apply in the order temperature, top-k, top-p, min-p (as in vLLM and
  // Hugging Face's warpers), then one token is drawn.
  float temperature = 0;
  int32_t top_k = 0;   // 0: all
  float top_p = 1.0f;  // smallest set whose probability reaches top_p
  float min_p = 0.0f;  // times the highest probability
  uint64_t seed = 0;
  uint64_t position = 0;  // of the drawn token: the generator's counter

  absl::Span<const int32_t> banned;  // never drawn
  int32_t top_logprobs = 0;          // how many of the highest to report

  // If not empty, nothing is drawn: the log-probabilities of these tokens are
  // reported instead.
  absl::Span<const int32_t> scored;
};

struct SampleResult {
  int32_t token = -1;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // highest first
  std::vector<float> scored;      // [SampleRow::scored]
  // False: a logit was NaN or +inf, or no token that may be drawn was finite.
  bool finite = true;
};

// The reference, on the host; the CPU backend runs it over its thread pool.
// logits: [vocab]. `scratch` is reused between calls.
SampleResult SampleOne(absl::Span<const float> logits, const SampleRow& row,
                       std::vector<TokenLogprob>* scratch);

}  // namespace headcount
