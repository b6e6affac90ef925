#include "engine/request.h"

#include <algorithm>

#include "base/check.h"

namespace headcount {

int64_t RequestBytes(const Request& request) {
  const SamplingParams& sampling = request.sampling;
  size_t bytes = sizeof(Request) + request.tenant.size() +
                 request.cache_salt.size() +
                 static_cast<size_t>(GivenTokens(request)) * sizeof(int32_t) +
                 request.head_gates.size() * sizeof(float) +
                 sampling.logit_bias.size() * sizeof(TopLogprob);
  for (const std::string& stop : sampling.stops) bytes += stop.size();
  for (const std::vector<int32_t>& choice : sampling.choices) {
    bytes += choice.size() * sizeof(int32_t);
  }
  return static_cast<int64_t>(bytes);
}

int64_t GivenTokens(const Request& request) {
  size_t tokens = request.prompt.size();
  for (const std::vector<int32_t>& continuation : request.continuations) {
    tokens += continuation.size();
  }
  return static_cast<int64_t>(tokens);
}

std::optional<int64_t> ComputedTokens(const Request& request) {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const size_t count = request.continuations.size();
  int64_t longest = 1;
  for (const std::vector<int32_t>& continuation : request.continuations) {
    longest = std::max(longest, static_cast<int64_t>(continuation.size()));
  }
  if (count > 1 && longest > 1) return std::nullopt;
  return prompt + longest - 1;  // the last is only ever predicted
}

int64_t MaxNewTokens(const Request& request) {
  int64_t most = request.sampling.max_tokens;
  for (const std::vector<int32_t>& continuation : request.continuations) {
    most = std::max(most, static_cast<int64_t>(continuation.size()));
  }
  return most;
}

std::string_view EndCauseName(EndCause cause) {
  switch (cause) {
    case EndCause::kStop:
      return "stop";
    case EndCause::kLength:
      return "length";
    case EndCause::kCancelled:
      return "cancelled";
    case EndCause::kDeadline:
      return "deadline";
    case EndCause::kError:
      return "error";
  }
  CHECK(false) << "no such cause: " << static_cast<int>(cause);
  return "";
}

}  // namespace headcount
