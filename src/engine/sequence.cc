#include "engine/sequence.h"

#include <algorithm>
#include <utility>

namespace headcount {
namespace {

int32_t PromptTokens(const Request& request) {
  return static_cast<int32_t>(request.prompt.size());
}

}  // namespace

Sequence::Sequence(RequestId request_id, Request request, int32_t max_context,
                   size_t groups)
    : id(request_id),
      model(request.model),
      deadline(request.deadline),
      prompt_tokens(PromptTokens(request)),
      max_length(prompt_tokens + std::min(request.sampling.max_tokens,
                                          max_context - prompt_tokens)),
      max_kv_tokens(std::max(prompt_tokens, max_length - 1)),
      tokens(std::move(request.prompt)),
      // The logits of a position score the token after it.
      next_logits(request.score_from.value_or(prompt_tokens) - 1),
      tables(groups) {}

bool Sequence::HasRoomFor(int32_t num_tokens) const {
  return std::all_of(tables.begin(), tables.end(), [&](const BlockTable& t) {
    return t.capacity_tokens() >= num_tokens;
  });
}

int32_t Sequence::LogitsRows(int32_t num_tokens) const {
  return std::max(0, computed + num_tokens - std::max(computed, next_logits));
}

int32_t Sequence::TokensWithin(int32_t max_rows) const {
  return std::min(remaining(), std::max(0, next_logits - computed) + max_rows);
}

}  // namespace headcount
