#include "backend/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cpu/logits.h"
#include "backend/philox.h"
#include "backend/sampling_math.h"
#include "base/check.h"

namespace headcount {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// In scratch lists, `logprob` holds a logit.
bool Before(const TokenLogprob& a, const TokenLogprob& b) {
  if (a.logprob != b.logprob) return a.logprob > b.logprob;
  return a.token < b.token;
}

void ReportTop(absl::Span<const float> logits, int count, double log_sum,
               std::vector<TokenLogprob>* scratch, SampleResult* result) {
  const size_t kept = std::min(static_cast<size_t>(count), logits.size());
  // A heap of the best so far: most logits fail one comparison.
  scratch->clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const TokenLogprob next{static_cast<int32_t>(i), logits[i]};
    if (scratch->size() < kept) {
      scratch->push_back(next);
      std::push_heap(scratch->begin(), scratch->end(), Before);
    } else if (Before(next, scratch->front())) {
      std::pop_heap(scratch->begin(), scratch->end(), Before);
      scratch->back() = next;
      std::push_heap(scratch->begin(), scratch->end(), Before);
    }
  }
  std::sort_heap(scratch->begin(), scratch->end(), Before);
  for (const TokenLogprob& entry : *scratch) {
    result->top.push_back(
        {entry.token, static_cast<float>(entry.logprob - log_sum)});
  }
}

// Index of `token` in `logits`.
size_t IndexOf(int32_t token, absl::Span<const float> logits) {
  CHECK(token >= 0 && static_cast<size_t>(token) < logits.size())
      << "token " << token << " of " << logits.size();
  return static_cast<size_t>(token);
}

void ApplyPenalties(const SampleRow& row, absl::Span<float> logits) {
  const TokenPenalties penalties{.repetition = row.repetition_penalty,
                                 .frequency = row.frequency_penalty,
                                 .presence = row.presence_penalty};
  for (const TokenUse& use : row.uses) {
    float& logit = logits[IndexOf(use.token, logits)];
    logit = PenalisedLogit(logit, penalties, use.generated);
  }
}

// Takes out all but `allowed`, which is by rising id.
void KeepAllowed(absl::Span<const int32_t> allowed, absl::Span<float> logits) {
  size_t next = 0;
  for (const int32_t token : allowed) {
    const size_t index = IndexOf(token, logits);
    CHECK(index >= next) << "allowed token " << token << " out of order";
    std::fill(logits.begin() + next, logits.begin() + index, -kInfinity);
    next = index + 1;
  }
  std::fill(logits.begin() + next, logits.end(), -kInfinity);
}

// The logits to draw from: the model's own, or a copy that `row` has changed.
absl::Span<const float> Adjusted(absl::Span<const float> logits,
                                 const SampleRow& row,
                                 std::vector<float>* copy) {
  if (row.uses.empty() && row.biases.empty() && row.allowed.empty() &&
      row.banned.empty()) {
    return logits;
  }
  copy->assign(logits.begin(), logits.end());
  const absl::Span<float> adjusted = absl::MakeSpan(*copy);
  ApplyPenalties(row, adjusted);
  for (const TokenBias& bias : row.biases) {
    adjusted[IndexOf(bias.token, adjusted)] += bias.bias;
  }
  if (!row.allowed.empty()) KeepAllowed(row.allowed, adjusted);
  for (const int32_t token : row.banned) {
    adjusted[IndexOf(token, adjusted)] = -kInfinity;
  }
  return adjusted;
}

// The highest logit, the lowest id among equals; -1 when all are taken out.
int32_t Greedy(absl::Span<const float> logits) {
  float best = -kInfinity;
  int32_t token = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] <= best) continue;
    best = logits[i];
    token = static_cast<int32_t>(i);
  }
  return token;
}

// The tokens that may be drawn, by rising id.
void ListCandidates(absl::Span<const float> logits,
                    std::vector<TokenLogprob>* candidates) {
  candidates->resize(logits.size());
  size_t count = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    (*candidates)[count] = {static_cast<int32_t>(i), logits[i]};
    count += logits[i] == -kInfinity ? 0 : 1;
  }
  candidates->resize(count);
}

// Turns logits into weights, 1 for the highest.
void ToWeights(float temperature, std::vector<TokenLogprob>* candidates) {
  float highest = -kInfinity;
  for (const TokenLogprob& entry : *candidates) {
    highest = std::max(highest, entry.logprob);
  }
  for (TokenLogprob& entry : *candidates) {
    entry.logprob = TokenWeight(entry.logprob, highest, temperature);
  }
}

uint64_t SumWeights(absl::Span<const TokenLogprob> entries) {
  uint64_t sum = 0;
  for (const TokenLogprob& entry : entries) sum += WeightUnits(entry.logprob);
  return sum;
}

// Keeps the first `count` in the order of Before.
void KeepTopK(size_t count, std::vector<TokenLogprob>* candidates) {
  if (count >= candidates->size()) return;
  std::nth_element(candidates->begin(),
                   candidates->begin() + static_cast<std::ptrdiff_t>(count),
                   candidates->end(), Before);
  candidates->resize(count);
}

// Keeps the shortest prefix, in the order of Before, whose weight reaches
// `top_p` of the whole: halves the range in which the prefix ends, so that no
// more than the last few are sorted.
void KeepTopP(float top_p, std::vector<TokenLogprob>* candidates) {
  constexpr std::ptrdiff_t kSorted = 64;
  const uint64_t sum = SumWeights(*candidates);
  const uint64_t wanted = WantedWeight(top_p, sum);
  // Even all together, tokens below this weigh no more than what may be
  // missing.
  const uint64_t least = (sum - std::min(sum, wanted)) / candidates->size();
  std::erase_if(*candidates, [&](const TokenLogprob& entry) {
    return WeightUnits(entry.logprob) < least;
  });
  auto begin = candidates->begin();
  auto end = candidates->end();
  uint64_t kept = 0;  // weight of all before `begin`
  while (end - begin > kSorted) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, Before);
    const uint64_t upper = SumWeights(absl::MakeConstSpan(&*begin, &*middle));
    if (kept + upper >= wanted) {
      end = middle;
    } else {
      kept += upper;
      begin = middle;
    }
  }
  std::sort(begin, end, Before);
  while (begin != end && kept < wanted) {
    kept += WeightUnits(begin->logprob);
    ++begin;
  }
  candidates->erase(begin, candidates->end());
}

// The first token, by rising id, at which the running sum of weights exceeds
// `uniform` (of 2^24) of the whole.
int32_t DrawByWeight(uint32_t uniform,
                     const std::vector<TokenLogprob>& candidates) {
  const uint64_t point = DrawPoint(uniform, SumWeights(candidates));
  uint64_t sum = 0;
  for (const TokenLogprob& entry : candidates) {
    sum += WeightUnits(entry.logprob);
    if (sum > point) return entry.token;
  }
  return -1;
}

// Filters the adjusted logits and draws; -1 when no token may be drawn.
int32_t Draw(absl::Span<const float> logits, const SampleRow& row,
             std::vector<TokenLogprob>* candidates) {
  if (row.temperature <= 0) return Greedy(logits);
  ListCandidates(logits, candidates);
  if (candidates->empty()) return -1;
  if (row.top_k > 0) KeepTopK(static_cast<size_t>(row.top_k), candidates);
  ToWeights(row.temperature, candidates);
  if (row.top_p < 1) KeepTopP(row.top_p, candidates);
  if (row.min_p > 0) {
    std::erase_if(*candidates, [&](const TokenLogprob& entry) {
      return entry.logprob < row.min_p;
    });
  }
  if (row.top_k > 0 || row.top_p < 1) {
    std::sort(candidates->begin(), candidates->end(),
              [](const TokenLogprob& a, const TokenLogprob& b) {
                return a.token < b.token;
              });
  }
  return DrawByWeight(UniformBits(row.seed, row.position), *candidates);
}

// Sum of p (log p - log q), p being exp(reference) and q the softmax of
// `logits`.
double DivergenceFrom(absl::Span<const float> reference,
                      absl::Span<const float> logits, double log_sum) {
  CHECK(reference.size() == logits.size()) << reference.size();
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float p = std::exp(reference[i]);
    if (p == 0) continue;  // also where both are -infinity
    // Rounded as what is kept: equal logits are no distance apart.
    const auto logprob = static_cast<float>(logits[i] - log_sum);
    sum += double{p} * (double{reference[i]} - double{logprob});
  }
  return sum;
}

}  // namespace

SampleResult SampleOne(absl::Span<const float> logits, const SampleRow& row,
                       SampleScratch* scratch) {
  SampleResult result;
  float highest = 0;
  result.finite = FindHighestLogit(logits, &highest);
  if (!result.finite) return result;
  const double log_sum = highest + std::log(SumExp(logits, highest));
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(logits[IndexOf(token, logits)] - log_sum);
  };
  if (row.top_logprobs > 0) {
    ReportTop(logits, row.top_logprobs, log_sum, &scratch->entries, &result);
  }
  if (!row.kept.empty()) {
    CHECK(row.kept.size() == logits.size()) << row.kept.size();
    for (size_t i = 0; i < logits.size(); ++i) {
      row.kept[i] = static_cast<float>(logits[i] - log_sum);
    }
  }
  if (!row.reference.empty()) {
    result.divergence = DivergenceFrom(row.reference, logits, log_sum);
  }
  if (!row.scored.empty()) {
    result.scored.reserve(row.scored.size());
    for (const int32_t token : row.scored) {
      result.scored.push_back(logprob(token));
    }
    return result;
  }
  result.token =
      Draw(Adjusted(logits, row, &scratch->logits), row, &scratch->entries);
  if (result.token >= 0) result.logprob = logprob(result.token);
  return result;
}

}  // namespace headcount
