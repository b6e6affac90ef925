#include "engine/sequence_limits.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "heads/kv_geometry.h"

namespace headcount {

int64_t SequenceLimits::pool_tokens() const {
  return pool_entries * kBlockTokens;
}

absl::Status CheckFits(const SequenceLimits& limits, const Request& request) {
  const int64_t context = limits.max_context;
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t new_tokens = MaxNewTokens(request);
  const bool generates = request.continuations.empty();
  const int64_t least_new =
      generates ? std::min<int64_t>(new_tokens, 1) : new_tokens;
  if (prompt + least_new > context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt: ", prompt, " tokens, of which at most ",
        std::max<int64_t>(context - least_new, 0), " fit the context of ",
        context, " tokens; shorten the prompt"));
  }
  const int64_t most = std::min(prompt + new_tokens, context);
  const int64_t entries = KvGeometry::BlocksFor(std::max(prompt, most - 1));
  if (entries <= limits.pool_entries) return absl::OkStatus();
  int64_t blocks = 0;  // at once, of the group that needs the most
  for (const int64_t held : limits.most_blocks) {
    blocks = std::max(blocks, std::min(entries, held));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      generates ? "max_tokens" : "prompt", ": a prompt of ", prompt,
      " tokens and up to ", most - prompt, " after it need ", blocks,
      " KV blocks, and the whole pool has ", limits.pool_entries,
      " available (", limits.pool_tokens(),
      " tokens); ask for fewer tokens or enlarge the pool"));
}

}  // namespace headcount
