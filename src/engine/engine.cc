#include "engine/engine.h"

#include <algorithm>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/generation.h"
#include "engine/mailbox.h"
#include "engine/scheduler.h"
#include "engine/token_rate.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

// The queue's default bound in tokens, in pools.
constexpr int64_t kQueuedPools = 4;

class EngineImpl final : public Engine {
 public:
  // What Create has made.
  struct Parts {
    std::unique_ptr<Backend> backend;
    std::vector<EngineModel> models;
    std::unique_ptr<BlockPool> pool;
    std::unique_ptr<Scheduler> scheduler;  // with the models
    std::unique_ptr<Buffer> arena;
  };

  EngineImpl(const EngineOptions& options, Parts parts, const Clock* clock);
  ~EngineImpl() override { Stop(); }

  void SetStepObserver(void (*observer)(void*, const StepReport&),
                       void* context) override {
    observer_ = observer;
    observer_context_ = context;
  }

  void Start() override;
  void Stop() override;
  absl::StatusOr<RequestId> Submit(Request request,
                                   std::shared_ptr<RequestSink> sink) override;
  void Cancel(RequestId id) override { mailbox_.Cancel(id); }
  void Drain(absl::Time deadline) override;
  EngineSnapshot Snapshot() const override { return mailbox_.Snapshot(); }
  const std::vector<EngineModel>& models() const override { return models_; }
  const Backend& backend() const override { return *backend_; }
  bool StepOnce() override;

 private:
  void Run();
  StepEvents TakeMail();
  void Attend(const StepPlan& plan, absl::Time now);
  absl::StatusOr<Logits> Forward(const StepPlan& plan);
  std::vector<StepResult> Sample(const StepPlan& plan,
                                 const absl::StatusOr<Logits>& logits);
  void Publish(const StepPlan& plan, absl::Time start);
  void Deliver();
  std::vector<SequenceLimits> Limits() const;
  QueueLimits MakeQueueLimits(const EngineOptions& options) const;
  EngineSnapshot Counts() const;

  const Clock* const clock_;
  const std::unique_ptr<Backend> backend_;
  const std::vector<EngineModel> models_;
  const std::unique_ptr<Buffer> arena_;
  const std::unique_ptr<BlockPool> pool_;
  void (*observer_)(void*, const StepReport&) = nullptr;
  void* observer_context_ = nullptr;

  // The step thread's own.
  const std::unique_ptr<Scheduler> scheduler_;
  const std::vector<SequenceLimits> limits_;  // [model]
  std::map<RequestId, std::unique_ptr<Generation>> generations_;
  struct News {
    RequestId id;
    Generation* generation;
  };
  std::vector<News> news_;  // of this step: [plan.parts], then [plan.ended]
  EngineSnapshot totals_;   // only what adds up from step to step
  TokenRate rate_;

  Mailbox mailbox_;
  std::thread thread_;
};

EngineImpl::EngineImpl(const EngineOptions& options, Parts parts,
                       const Clock* clock)
    : clock_(clock),
      backend_(std::move(parts.backend)),
      models_(std::move(parts.models)),
      arena_(std::move(parts.arena)),
      pool_(std::move(parts.pool)),
      scheduler_(std::move(parts.scheduler)),
      limits_(Limits()),
      mailbox_(MakeQueueLimits(options), Counts(), clock) {}

void EngineImpl::Start() {
  CHECK(!thread_.joinable()) << "started twice";
  mailbox_.Open();
  thread_ = std::thread([this] { Run(); });
}

void EngineImpl::Stop() {
  mailbox_.Advance(Phase::kStopped);
  if (thread_.joinable()) {
    thread_.join();
  } else {
    StepOnce();
  }
}

absl::StatusOr<RequestId> EngineImpl::Submit(
    Request request, std::shared_ptr<RequestSink> sink) {
  CHECK(request.model >= 0 && request.model < static_cast<int>(models_.size()))
      << request.model;
  const EngineModel& model = models_[static_cast<size_t>(request.model)];
  CHECK(!request.prompt.empty());
  CHECK(request.continuations.empty() || request.sampling.max_tokens == 0);
  CHECK(request.head_gates.empty() ||
        static_cast<int64_t>(request.head_gates.size()) ==
            model.model->layout().dense_query_heads())
      << request.head_gates.size() << " gates";
  const absl::Status fits =
      CheckFits(limits_[static_cast<size_t>(request.model)], request);
  if (!fits.ok()) return fits;
  const absl::Time now = clock_->Now();
  if (request.deadline <= now) {
    return absl::DeadlineExceededError("the deadline has already passed");
  }
  auto generation =
      std::make_unique<Generation>(request, model.model->config().eos_ids,
                                   model.tokenizer.get(), std::move(sink), now);
  return mailbox_.Submit(std::move(request), std::move(generation));
}

void EngineImpl::Drain(absl::Time deadline) {
  mailbox_.Advance(Phase::kDraining);
  mailbox_.AwaitQuiet(deadline);
  mailbox_.Advance(Phase::kEnding);
  mailbox_.AwaitQuiet(absl::InfiniteFuture());
}

void EngineImpl::Run() {
  bool busy = false;
  while (busy || mailbox_.AwaitMail(scheduler_->NextDeadline())) {
    busy = StepOnce();
  }
  mailbox_.Close();
}

bool EngineImpl::StepOnce() {
  const absl::Time start = clock_->Now();
  const StepPlan plan = scheduler_->Step(start, TakeMail());
  Attend(plan, start);
  const absl::StatusOr<Logits> logits = Forward(plan);
  const std::vector<StepResult> results = Sample(plan, logits);
  scheduler_->Commit(plan, results, clock_->Now() - start);
  Publish(plan, start);
  Deliver();
  return !news_.empty();
}

StepEvents EngineImpl::TakeMail() {
  Mail mail = mailbox_.Take();
  StepEvents events;
  for (Arrival& arrival : mail.arrivals) {
    generations_.emplace(arrival.id, std::move(arrival.generation));
    events.submitted.push_back({arrival.id, std::move(arrival.request)});
  }
  for (const RequestId id : mail.cancels) {
    events.ends.push_back({id, EndCause::kCancelled});
  }
  if (mail.phase == Phase::kServing) return events;
  for (const auto& [id, generation] : generations_) {
    if (mail.phase == Phase::kDraining && generation->started()) continue;
    events.ends.push_back({id, EndCause::kError});
  }
  return events;
}

// Looks up whom the plan is about, and ends those that it ends.
void EngineImpl::Attend(const StepPlan& plan, absl::Time now) {
  news_.clear();
  for (const StepPart& part : plan.parts) {
    const RequestId id = part.sequence->id;
    news_.push_back({id, generations_.at(id).get()});
    news_.back().generation->Start(part.sequence->cached_tokens, now);
  }
  for (const auto& [id, cause] : plan.ended) {
    news_.push_back({id, generations_.at(id).get()});
    absl::Status status = absl::UnavailableError("the server is shutting down");
    if (cause == EndCause::kCancelled) {
      status = absl::CancelledError("the request was cancelled");
    } else if (cause == EndCause::kDeadline) {
      status = absl::DeadlineExceededError("the deadline has passed");
    }
    news_.back().generation->End(cause, std::move(status), now);
  }
}

absl::StatusOr<Logits> EngineImpl::Forward(const StepPlan& plan) {
  if (plan.parts.empty()) return Logits{};
  Batch batch;
  for (size_t i = 0; i < plan.parts.size(); ++i) {
    const StepPart& part = plan.parts[i];
    const Sequence& sequence = *part.sequence;
    BatchSequence& in = batch.sequences.emplace_back();
    in.tokens = absl::MakeConstSpan(sequence.tokens)
                    .subspan(static_cast<size_t>(sequence.computed),
                             static_cast<size_t>(part.num_tokens));
    in.past = sequence.computed;
    for (const BlockTable& table : sequence.tables) {
      in.blocks.push_back(table.offsets());
    }
    in.logits_rows = part.logits_rows;
    in.head_gates = news_[i].generation->head_gates();
  }
  const EngineModel& model = models_[static_cast<size_t>(plan.model)];
  return model.model->Forward(batch, arena_->data());
}

std::vector<StepResult> EngineImpl::Sample(
    const StepPlan& plan, const absl::StatusOr<Logits>& logits) {
  const size_t num_parts = plan.parts.size();
  std::vector<StepResult> out(num_parts);
  std::vector<SampleRow> rows;
  std::vector<size_t> ends;  // [part] in rows
  int32_t logits_row = 0;
  for (size_t i = 0; i < num_parts; ++i) {
    news_[i].generation->AppendRows(plan.parts[i], logits_row, &rows);
    logits_row += plan.parts[i].logits_rows;
    ends.push_back(rows.size());
  }
  std::vector<SampleResult> results;
  if (logits.ok() && !rows.empty()) {
    results = backend_->Sample(logits->data, logits->vocab, rows);
  }
  const absl::Time now = clock_->Now();
  size_t begin = 0;
  for (size_t i = 0; i < num_parts; ++i) {
    Generation& generation = *news_[i].generation;
    if (logits.ok()) {
      out[i] = generation.Take(
          plan.parts[i],
          absl::MakeConstSpan(results).subspan(begin, ends[i] - begin), now);
    } else {
      generation.End(EndCause::kError, logits.status(), now);
      out[i].end = EndCause::kError;
    }
    begin = ends[i];
  }
  return out;
}

// Makes the counts those after this step, before anybody hears of it.
void EngineImpl::Publish(const StepPlan& plan, absl::Time start) {
  const absl::Time now = clock_->Now();
  const absl::Duration duration = now - start;
  if (!plan.parts.empty()) {
    const int32_t tokens = plan.prefill_tokens + plan.decode_tokens;
    ++totals_.steps;
    totals_.step_tokens += static_cast<uint64_t>(tokens);
    totals_.step_time_total += duration;
    totals_.last_step = now;
    rate_.Add(now, tokens);
  }
  mailbox_.Publish(Counts(), rate_);
  if (observer_ == nullptr || plan.parts.empty()) return;
  observer_(observer_context_,
            {.model = plan.model,
             .prefill_tokens = plan.prefill_tokens,
             .decode_tokens = plan.decode_tokens,
             .sequences = static_cast<int32_t>(plan.parts.size()),
             .duration = duration});
}

void EngineImpl::Deliver() {
  for (const News& news : news_) {
    news.generation->Deliver();
    if (news.generation->ended()) generations_.erase(news.id);
  }
}

std::vector<SequenceLimits> EngineImpl::Limits() const {
  std::vector<SequenceLimits> limits;
  for (int i = 0; i < static_cast<int>(models_.size()); ++i) {
    limits.push_back(scheduler_->limits(i));
  }
  return limits;
}

QueueLimits EngineImpl::MakeQueueLimits(const EngineOptions& options) const {
  QueueLimits limits{options.max_queued_requests, options.max_queued_tokens,
                     options.max_queued_bytes};
  if (limits.tokens > 0) return limits;
  for (const SequenceLimits& model : limits_) {
    limits.tokens = std::max(limits.tokens, kQueuedPools * model.pool_tokens());
  }
  return limits;
}

EngineSnapshot EngineImpl::Counts() const {
  EngineSnapshot counts = totals_;
  const SchedulerStats stats = scheduler_->Stats();
  for (size_t i = 0; i < models_.size(); ++i) {
    EngineSnapshot::PerModel& model = counts.models.emplace_back();
    model.running = stats.models[i].running;
    model.waiting = stats.models[i].waiting;
    model.kv = stats.models[i].pool;
    model.kv_tokens = stats.models[i].kv_tokens;
    model.prefix_tokens = stats.models[i].prefix_tokens;
    model.prefix_hit_tokens = stats.models[i].prefix_hit_tokens;
    model.preemptions = stats.models[i].preemptions;
  }
  counts.pool = pool_->bytes();
  counts.pool_capacity = pool_->capacity_bytes();
  counts.queued_tokens = stats.waiting_tokens;
  counts.queued_bytes = stats.waiting_bytes;
  counts.preemptions = stats.preemptions;
  counts.prefix_evictions = stats.evictions;
  return counts;
}

// The status with `name` before its message.
absl::Status Of(const std::string& name, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(name, ": ", status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options, std::unique_ptr<Backend> backend,
    std::vector<EngineModel> models, const Clock* clock) {
  const int64_t slab_bytes = SlabBytes(options.kv_pool_bytes);
  EngineImpl::Parts parts;
  parts.pool = std::make_unique<BlockPool>(
      BlockPoolOptions{options.kv_pool_bytes, slab_bytes});
  parts.scheduler = std::make_unique<Scheduler>(
      SchedulerOptions{.step_tokens = options.step_tokens,
                       .watermark = options.watermark,
                       .prefix_cache = options.prefix_cache,
                       .prefix_key = options.prefix_key},
      parts.pool.get());
  for (const EngineModel& model : models) {
    SchedulerModel out{.groups = {},
                       .quota = model.quota,
                       .max_context = model.max_context,
                       .max_concurrent = model.max_concurrent,
                       .max_logits_rows = model.max_logits_rows,
                       .share = model.share};
    const std::vector<KvGeometry>& geometries = model.model->geometries();
    for (size_t i = 0; i < geometries.size(); ++i) {
      out.groups.push_back({geometries[i].block_bytes(),
                            model.model->layout().groups()[i].retention});
    }
    const absl::StatusOr<int> index = parts.scheduler->AddModel(out);
    if (!index.ok()) return Of(model.name, index.status());
  }
  absl::StatusOr<std::unique_ptr<Buffer>> arena =
      backend->Allocate(options.kv_pool_bytes);
  if (!arena.ok()) return Of("KV pool", arena.status());
  parts.arena = *std::move(arena);
  parts.backend = std::move(backend);
  parts.models = std::move(models);
  return std::make_unique<EngineImpl>(options, std::move(parts), clock);
}

}  // namespace headcount
