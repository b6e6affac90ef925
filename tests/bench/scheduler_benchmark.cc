// What a step of the scheduler costs, Step and Commit, with so many sequences
// that decode and 10,000 that wait, of two models and 50 tenants. The pool is
// full, so that sequences are preempted and admitted, and cached blocks
// evicted, all the time. `hash` tells whether two runs did the same.
//
//   scheduler_benchmark --benchmark_repetitions=5
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "benchmark/benchmark.h"
#include "engine/scheduler.h"

namespace headcount {
namespace {

constexpr int kWaiting = 10000;
constexpr int32_t kPrompt = 200;
constexpr int32_t kGenerated = 200;
constexpr int64_t kBlockBytes = 16 * 23040;  // of SmolLM2-135M

Request MakeRequest(RequestId id) {
  Request request;
  request.model = static_cast<int>(id % 2);
  request.tenant = "tenant" + std::to_string(id % 50);
  for (int32_t i = 0; i < kPrompt; ++i) {
    // Every other one begins like those before it.
    request.prompt.push_back(i < 100 && id % 4 < 2 ? i
                                                   : static_cast<int32_t>(id));
  }
  request.sampling.max_tokens = kGenerated;
  return request;
}

// Keeps kWaiting requests waiting.
class Load {
 public:
  explicit Load(int32_t running)
      : pool_({.capacity_bytes = running * 18 * kBlockBytes,
               .slab_bytes = 8 << 20}),
        scheduler_({.step_tokens = 2 * running}, &pool_) {
    for (int model = 0; model < 2; ++model) {
      // A variant of the first, so that both run in one step.
      const absl::StatusOr<int> added =
          scheduler_.AddModel({.groups = {{.block_bytes = kBlockBytes}},
                               .max_context = 8192,
                               .max_concurrent = running / 2,
                               .max_logits_rows = running,
                               .base = model - 1});
      CHECK(added.ok()) << added.status();
    }
  }

  void Step() {
    StepEvents events;
    while (waiting_ < kWaiting) {
      const RequestId id = ++last_id_;
      events.submitted.push_back({id, MakeRequest(id)});
      ++waiting_;
    }
    Step(std::move(events));
  }

  void Step(StepEvents events) {
    const StepPlan plan = scheduler_.Step(now_, std::move(events));
    now_ += absl::Milliseconds(10);
    results_.clear();
    for (const StepPart& part : plan.parts) {
      StepResult& result = results_.emplace_back();
      const Sequence& sequence = *part.sequence;
      hash_ = hash_ * 31 + sequence.id + static_cast<uint64_t>(part.num_tokens);
      if (sequence.computed + part.num_tokens < sequence.length()) continue;
      result.token = static_cast<int32_t>(sequence.id);
      if (sequence.length() + 1 == sequence.max_length) {
        result.end = EndCause::kLength;
      }
    }
    scheduler_.Commit(plan, results_, absl::Milliseconds(10));
    parts_ += plan.parts.size();
  }

  // Outside of what is measured: as many wait as before.
  void Refill() {
    waiting_ = 0;
    for (const auto& model : scheduler_.Stats().models) {
      waiting_ += model.waiting;
    }
  }

  const Scheduler& scheduler() const { return scheduler_; }
  uint64_t parts() const { return parts_; }
  uint64_t hash() const { return hash_; }

 private:
  BlockPool pool_;
  Scheduler scheduler_;
  absl::Time now_ = absl::UnixEpoch();
  std::vector<StepResult> results_;
  int waiting_ = 0;
  RequestId last_id_ = 0;
  uint64_t parts_ = 0;
  uint64_t hash_ = 0;
};

void BM_Step(benchmark::State& state) {
  const auto running = static_cast<int32_t>(state.range(0));
  Load load(running);
  load.Step();
  for (int i = 0; i < 2 * kGenerated; ++i) load.Step({});
  const uint64_t before = load.parts();
  const uint64_t preempted = load.scheduler().Stats().preemptions;
  for (auto _ : state) {
    load.Step({});
    state.PauseTiming();
    load.Refill();
    load.Step();
    state.ResumeTiming();
  }
  const auto steps = 2.0 * static_cast<double>(state.iterations());
  state.counters["sequences"] =
      static_cast<double>(load.parts() - before) / steps;
  state.counters["preemptions"] =
      static_cast<double>(load.scheduler().Stats().preemptions - preempted) /
      steps;
  state.counters["hash"] = static_cast<double>(load.hash() % 1000003);
}
BENCHMARK(BM_Step)
    ->ArgName("running")
    ->Arg(16)
    ->Arg(256)
    ->Arg(1024)
    ->Iterations(1000)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace headcount

BENCHMARK_MAIN();
