#include "backend/cuda/sample_batch.h"

#include "absl/types/span.h"
#include "base/check.h"

namespace headcount::cuda {
namespace {

int32_t TokenOf(const TokenUse& use) { return use.token; }
int32_t TokenOf(const TokenBias& bias) { return bias.token; }
int32_t TokenOf(int32_t token) { return token; }

template <class T>
SampleSpan Append(absl::Span<const T> from, int64_t vocab, std::vector<T>* to) {
  for (const T& entry : from) {
    CHECK(TokenOf(entry) >= 0 && TokenOf(entry) < vocab)
        << "token " << TokenOf(entry) << " of " << vocab;
  }
  const auto begin = static_cast<int32_t>(to->size());
  to->insert(to->end(), from.begin(), from.end());
  return {.begin = begin, .count = static_cast<int32_t>(from.size())};
}

}  // namespace

bool IsDrawnOnDevice(const SampleRow& row) {
  return row.top_logprobs == 0 && row.scored.empty() && row.kept.empty() &&
         row.reference.empty();
}

void AddRow(const SampleRow& row, int64_t vocab, SampleBatch* batch) {
  CHECK(IsDrawnOnDevice(row));
  batch->rows.push_back({
      .seed = row.seed,
      .position = row.position,
      .logits_row = row.logits_row,
      .repetition_penalty = row.repetition_penalty,
      .frequency_penalty = row.frequency_penalty,
      .presence_penalty = row.presence_penalty,
      .temperature = row.temperature,
      .top_p = row.top_p,
      .min_p = row.min_p,
      .top_k = row.top_k,
      .uses = Append(row.uses, vocab, &batch->uses),
      .biases = Append(row.biases, vocab, &batch->biases),
      .allowed = Append(row.allowed, vocab, &batch->allowed),
      .banned = Append(row.banned, vocab, &batch->banned),
  });
}

void Clear(SampleBatch* batch) {
  batch->rows.clear();
  batch->uses.clear();
  batch->biases.clear();
  batch->allowed.clear();
  batch->banned.clear();
}

}  // namespace headcount::cuda
