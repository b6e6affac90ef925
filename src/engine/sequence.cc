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
                   size_t groups, bool may_share_prefix)
    : id(request_id),
      model(request.model),
      deadline(request.deadline),
      bytes(RequestBytes(request)),
      tenant(std::move(request.tenant)),
      priority(request.priority),
      cache_salt(std::move(request.cache_salt)),
      // Gates change what later layers see, and so their K and V; statistics
      // and inputs are of tokens that are computed.
      shares_prefix(may_share_prefix && request.head_gates.empty() &&
                    request.statistics == nullptr &&
                    request.kept_inputs == nullptr &&
                    request.inputs == nullptr),
      prompt_tokens(PromptTokens(request)),
      max_length(prompt_tokens +
                 std::min(static_cast<int32_t>(MaxNewTokens(request)),
                          max_context - prompt_tokens)),
      max_kv_tokens(std::max(prompt_tokens, max_length - 1)),
      continuations(std::move(request.continuations)),
      tokens(std::move(request.prompt)),
      // The logits of a position are about the token after it.
      next_logits(prompt_tokens - 1),
      tables(groups) {
  continuation = LongContinuation(0);
  AppendContinuation();
}

size_t Sequence::LongContinuation(size_t index) const {
  while (index < continuations.size() && continuations[index].size() < 2) {
    ++index;
  }
  return index;
}

void Sequence::Follow(size_t index) {
  continuation = index;
  tokens.resize(static_cast<size_t>(prompt_tokens));
  AppendContinuation();
  computed = prompt_tokens;
  next_logits = prompt_tokens;
}

void Sequence::AppendContinuation() {
  if (continuation == continuations.size()) return;
  const std::vector<int32_t>& more = continuations[continuation];
  tokens.insert(tokens.end(), more.begin(), more.end() - 1);
}

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
