// Continuous batching on one device: requests of several models in, tokens out.
//
//   auto engine = Engine::Create(options, backend, std::move(models));
//   (*engine)->Start();
//   absl::StatusOr<RequestId> id = (*engine)->Submit(request, sink);
//
// One thread runs the loop (StepOnce: schedule, forward, sample, commit). The
// rest is thread-safe; no call waits for a step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "engine/request.h"
#include "kv/block_pool.h"
#include "kv/prefix_hash.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace headcount {

struct EngineOptions {
  int64_t kv_pool_bytes = int64_t{1} << 30;
  // Tokens that one step may compute (prompt chunks and decode together).
  int32_t step_tokens = 256;
  // Waiting requests, their prompt tokens and their memory, over all models;
  // what is over is refused. 0 tokens: four times what the pool can hold.
  int32_t max_queued_requests = 1024;
  int64_t max_queued_tokens = 0;
  int64_t max_queued_bytes = int64_t{64} << 20;
  // Part of the pool kept free when a waiting request is admitted.
  double watermark = 0.01;
  // Keep the KV of finished and preempted sequences, while there is room, for
  // those that begin alike. The key makes it impossible to guess what collides.
  bool prefix_cache = true;
  PrefixHashKey prefix_key = {};
};

// A model as the engine runs it: with weights of its own, or as a variant of
// one that has.
struct EngineModel {
  std::string name;
  // The weights. Who shares them with a model of the engine is its variant, and
  // runs in the same steps.
  std::shared_ptr<Model> model;
  std::shared_ptr<const Variant> variant = nullptr;  // null: all their heads
  std::shared_ptr<const Tokenizer> tokenizer;
  int32_t max_context = 0;     // prompt and generated tokens of a sequence
  int32_t max_concurrent = 0;  // running sequences; 0: no limit
  // Of the ModelOptions it was loaded with; its max_step_tokens is at least
  // EngineOptions::step_tokens.
  int32_t max_logits_rows = 256;
  PoolQuota quota = {};
  double share = 1;      // weight of its turn on the device; a variant's: its
                         // base's, whose turns are its own
  uint64_t load_id = 0;  // see Request::load_id

  // The heads that it runs, and their pages.
  const Variant& heads() const {
    return variant != nullptr ? *variant : *model->whole();
  }
};

// Counts at one moment, consistent with each other.
struct EngineSnapshot {
  struct PerModel {
    int32_t running = 0;
    int32_t waiting = 0;
    PoolModelBytes kv;      // of the pool
    int64_t kv_tokens = 0;  // in blocks that its sequences hold
    // Prompt tokens looked for in the prefix cache, and found.
    uint64_t prefix_tokens = 0;
    uint64_t prefix_hit_tokens = 0;
    uint64_t preemptions = 0;
  };
  std::vector<PerModel> models;  // by index; those removed are zero
  // Null where the snapshot is older than the model.
  const PerModel* model(int index) const {
    const auto i = static_cast<size_t>(index);
    return i < models.size() ? &models[i] : nullptr;
  }
  PoolBytes pool;
  int64_t pool_capacity = 0;
  int64_t queued_tokens = 0;
  int64_t queued_bytes = 0;
  uint64_t steps = 0;
  uint64_t step_tokens = 0;  // tokens computed since the start
  uint64_t preemptions = 0;
  uint64_t prefix_evictions = 0;  // blocks that the prefix cache lost
  double tokens_per_second = 0;   // recent, prompt and generated together
  absl::Duration step_time_total;
  absl::Time last_step = absl::InfinitePast();
  // When the step began that runs now; InfiniteFuture: none does.
  absl::Time step_began = absl::InfiniteFuture();
};

// What the loop reports of each step, for histograms. Called on the step
// thread; must not block.
struct StepReport {
  int model = 0;
  int32_t prefill_tokens = 0;
  int32_t decode_tokens = 0;
  int32_t sequences = 0;
  absl::Duration duration;
};

class Engine {
 public:
  // Reserves the pool and adds the models, whose indices are those of the list.
  // Errors as of AddModel, with the name of the model.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const EngineOptions& options, std::unique_ptr<Backend> backend,
      std::vector<EngineModel> models, const Clock* clock);
  virtual ~Engine() = default;

  // Called after each step; set before Start.
  virtual void SetStepObserver(void (*observer)(void*, const StepReport&),
                               void* context) = 0;

  // Called once, on the step thread, when the device has failed for good
  // (Backend::status): requests have ended with that status, and others are
  // refused. Must not block; set before Start.
  virtual void SetFailureHandler(void (*handler)(void*, const absl::Status&),
                                 void* context) = 0;

  virtual void Start() = 0;  // the step thread
  // Ends what is left with UNAVAILABLE, then joins the step thread. One caller
  // at a time; the destructor does it too.
  virtual void Stop() = 0;

  // From now on requests can name the model, by the index that this returns:
  // the lowest that is free. `model` was loaded on the engine's backend.
  // InvalidArgument when a block of it does not fit a slab of the pool,
  // ResourceExhausted when the pool is too small for it beside the others (see
  // Scheduler::AddModel), or the device for what its steps need.
  // FailedPrecondition for a variant whose base is not there or is being
  // removed. Blocks until the step thread has taken it.
  virtual absl::StatusOr<int> AddModel(EngineModel model) = 0;
  // Refuses further requests of the model, lets those that it has end until
  // `deadline` and ends the others with UNAVAILABLE; returns how many. Its
  // index is free then, and its memory goes back with the last pointer to it.
  // FailedPrecondition, and nothing has changed, while it has variants; names
  // them. CHECKs that it is there and no other thread removes it.
  virtual absl::StatusOr<int> RemoveModel(int index, absl::Time deadline) = 0;
  // Null where there is none.
  virtual std::shared_ptr<const EngineModel> model(int index) const = 0;

  // Takes the request over; `sink` hears of it until its OnEnd has returned.
  // Refuses, with nothing queued and no call to `sink`:
  //   InvalidArgument    it can never fit the context or an empty pool (the
  //                      message has needed and available)
  //   ResourceExhausted  the queue is full
  //   DeadlineExceeded   its deadline has passed
  //   Unavailable        draining or stopped, or the model has been removed
  virtual absl::StatusOr<RequestId> Submit(
      Request request, std::shared_ptr<RequestSink> sink) = 0;

  // Ends the request with kCancelled before the next step, or does nothing if
  // it has ended.
  virtual void Cancel(RequestId id) = 0;

  // From now on Submit refuses, and requests that have not started end with
  // UNAVAILABLE. Returns when nothing runs any more, or at `deadline`; what
  // runs then is ended with UNAVAILABLE.
  virtual void Drain(absl::Time deadline) = 0;

  virtual EngineSnapshot Snapshot() const = 0;
  virtual Backend* backend() const = 0;  // to load models on

  // One turn of the loop on the caller's thread, for tests; never together
  // with Start. Returns whether there was anything to do.
  virtual bool StepOnce() = 0;
};

}  // namespace headcount
