// A closed loop: so many streams, each sends its next request when the last
// one has ended.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/client.h"
#include "cli/open_calls.h"

namespace headcount {

struct LoadOptions {
  std::string model;
  int32_t vocab = 0;  // prompts are made of ids below this
  int32_t streams = 1;
  int32_t requests = 16;
  int32_t prompt_tokens = 128;
  int32_t max_tokens = 64;
  uint64_t seed = 1;
};

// One request, as the client saw it.
struct Exchange {
  absl::Duration first;              // until the first token
  absl::Duration total;              // until the end
  std::vector<absl::Duration> gaps;  // between messages with tokens
  std::vector<int32_t> prompt;
  std::vector<int32_t> tokens;  // generated
};

struct LoadResult {
  absl::Duration wall;
  std::vector<Exchange> exchanges;  // [requests], by number of the request
};

// Prompt of request `number`: `count` ids below `vocab`, the same on every
// machine.
std::vector<int32_t> MakePrompt(uint64_t seed, uint64_t number, int32_t count,
                                int32_t vocab);

// Greedy requests that run to max_tokens whatever the model says, none of which
// finds its prompt in the prefix cache. The first error ends all of it.
// `report` hears how many are done, on any thread.
absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options,
                                   const Client& client, OpenCalls* calls,
                                   const std::function<void(int)>& report);

// FNV-1a over the generated ids of all requests in order: equal when, and in
// practice only when, every token is.
uint64_t HashTokens(const std::vector<Exchange>& exchanges);

}  // namespace headcount
