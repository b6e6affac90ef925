#include "cli/load.h"

#include <atomic>
#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "cli/fresh_salt.h"
#include "headcount/v1/inference.grpc.pb.h"

namespace headcount {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014, OOPSLA).
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

v1::GenerateRequest MakeRequest(const LoadOptions& options,
                                const std::vector<int32_t>& prompt,
                                std::string cache_salt) {
  v1::GenerateRequest request;
  request.set_model(options.model);
  request.mutable_tokens()->mutable_ids()->Assign(prompt.begin(), prompt.end());
  request.set_max_tokens(options.max_tokens);
  request.set_ignore_eos(true);
  request.set_cache_salt(std::move(cache_salt));
  return request;
}

absl::StatusOr<Exchange> Ask(const LoadOptions& options, int number,
                             std::string cache_salt, const Client& client,
                             OpenCalls* calls,
                             v1::InferenceService::Stub* stub) {
  Exchange exchange;
  exchange.prompt = MakePrompt(options.seed, static_cast<uint64_t>(number),
                               options.prompt_tokens, options.vocab);
  const v1::GenerateRequest request =
      MakeRequest(options, exchange.prompt, std::move(cache_salt));
  OpenCalls::Call call(calls, client);
  const absl::Time start = absl::Now();
  absl::Time last = absl::InfinitePast();
  v1::GenerateResponse response;
  const auto reader = stub->Generate(call.context(), request);
  while (reader->Read(&response)) {
    if (response.tokens().empty()) continue;
    const absl::Time now = absl::Now();
    if (exchange.tokens.empty()) {
      exchange.first = now - start;
    } else {
      exchange.gaps.push_back(now - last);
    }
    last = now;
    for (const v1::GeneratedToken& token : response.tokens()) {
      exchange.tokens.push_back(token.token_id());
    }
  }
  const absl::Status status = client.Check(reader->Finish());
  if (!status.ok()) return status;
  exchange.total = absl::Now() - start;
  return exchange;
}

// What the threads of a run share.
class Run {
 public:
  Run(const LoadOptions& options, const Client& client, OpenCalls* calls,
      const std::function<void(int)>& report)
      : options_(options),
        client_(client),
        calls_(calls),
        report_(report),
        stub_(v1::InferenceService::NewStub(client.channel())),
        exchanges_(static_cast<size_t>(options.requests)) {}

  // One stream: takes numbers until none is left.
  void Stream() {
    for (int number = next_++; number < options_.requests; number = next_++) {
      absl::StatusOr<Exchange> exchange =
          Ask(options_, number, salt_.Next(), client_, calls_, stub_.get());
      if (!exchange.ok()) {
        Fail(exchange.status());
        return;
      }
      MutexLock lock(&mutex_);
      exchanges_[static_cast<size_t>(number)] = *std::move(exchange);
      report_(++done_);
    }
  }

  absl::StatusOr<std::vector<Exchange>> Take() {
    MutexLock lock(&mutex_);
    if (!status_.ok()) return status_;
    return std::move(exchanges_);
  }

 private:
  void Fail(absl::Status status) {
    next_ = options_.requests;
    {
      MutexLock lock(&mutex_);
      if (!status_.ok()) return;  // the cancellation of the others
      status_ = std::move(status);
    }
    calls_->CancelAll();
  }

  const LoadOptions& options_;
  const Client& client_;
  OpenCalls* const calls_;
  const std::function<void(int)>& report_;
  const std::unique_ptr<v1::InferenceService::Stub> stub_;
  FreshSalt salt_;  // prompts are the same in each run
  std::atomic<int> next_ = 0;
  Mutex mutex_;
  int done_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<Exchange> exchanges_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::vector<int32_t> MakePrompt(uint64_t seed, uint64_t number, int32_t count,
                                int32_t vocab) {
  std::vector<int32_t> prompt;
  prompt.reserve(static_cast<size_t>(count));
  const uint64_t base = Mix(Mix(seed) + number);
  for (int32_t i = 0; i < count; ++i) {
    const uint64_t draw = Mix(base + static_cast<uint64_t>(i));
    prompt.push_back(static_cast<int32_t>(draw % static_cast<uint64_t>(vocab)));
  }
  return prompt;
}

absl::StatusOr<LoadResult> RunLoad(const LoadOptions& options,
                                   const Client& client, OpenCalls* calls,
                                   const std::function<void(int)>& report) {
  Run run(options, client, calls, report);
  const absl::Time start = absl::Now();
  std::vector<std::thread> threads;
  for (int i = 0; i < options.streams; ++i) {
    threads.emplace_back([&run] { run.Stream(); });
  }
  for (std::thread& thread : threads) thread.join();
  const absl::Duration wall = absl::Now() - start;
  absl::StatusOr<std::vector<Exchange>> exchanges = run.Take();
  if (!exchanges.ok()) return exchanges.status();
  return LoadResult{.wall = wall, .exchanges = *std::move(exchanges)};
}

uint64_t HashTokens(const std::vector<Exchange>& exchanges) {
  uint64_t hash = 0xCBF29CE484222325;
  const auto add = [&hash](uint64_t value) {
    for (int byte = 0; byte < 4; ++byte) {
      hash = (hash ^ (value >> (8 * byte) & 0xFF)) * 0x100000001B3;
    }
  };
  for (const Exchange& exchange : exchanges) {
    add(exchange.tokens.size());
    for (const int32_t id : exchange.tokens) add(static_cast<uint32_t>(id));
  }
  return hash;
}

}  // namespace headcount
