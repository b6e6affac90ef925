// What a sequence of a model may come to: what goes over it can never run.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"

namespace headcount {

struct SequenceLimits {
  int32_t max_context = 0;  // tokens, of the prompt and what follows
  // Blocks of each KvGroup that one sequence holds at once, at most.
  std::vector<int64_t> most_blocks;  // [group]
  // Entries of each of its block tables when the model has all of the pool that
  // it may count on.
  int64_t pool_entries = 0;

  // Tokens of one sequence that the pool can hold.
  int64_t pool_tokens() const;
};

// InvalidArgument, naming the field, with needed and available, for what can
// never run: over the context, or over what the pool has in the worst case.
absl::Status CheckFits(const SequenceLimits& limits, const Request& request);

}  // namespace headcount
