#include "engine/engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "engine/engine_impl.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

// The status with `name` before its message.
absl::Status Of(const std::string& name, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(name, ": ", status.message()));
}

}  // namespace

EngineImpl::EngineImpl(const EngineOptions& options,
                       std::unique_ptr<Backend> backend,
                       std::unique_ptr<Buffer> arena, const Clock* clock)
    : options_(options),
      clock_(clock),
      backend_(std::move(backend)),
      arena_(std::move(arena)),
      pool_({options.kv_pool_bytes, SlabBytes(options.kv_pool_bytes)}),
      scheduler_({.step_tokens = options.step_tokens,
                  .watermark = options.watermark,
                  .prefix_cache = options.prefix_cache,
                  .prefix_key = options.prefix_key},
                 &pool_),
      mailbox_(clock) {
  OpenModels();
}

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
    Deliver(&late_news_);
  }
}

void EngineImpl::Drain(absl::Time deadline) {
  mailbox_.Advance(Phase::kDraining);
  mailbox_.AwaitQuiet(deadline);
  mailbox_.Advance(Phase::kEnding);
  mailbox_.AwaitQuiet(absl::InfiniteFuture());
}

void EngineImpl::Run() {
  bool busy = false;
  while (busy || mailbox_.AwaitMail(scheduler_.NextDeadline())) {
    busy = StepOnce();
  }
  mailbox_.Close();
}

bool EngineImpl::StepOnce() {
  const absl::Time start = clock_->Now();
  const StepPlan plan = scheduler_.Step(start, TakeMail());
  Attend(plan, start);
  if (!plan.parts.empty()) mailbox_.BeginStep(start);
  const absl::StatusOr<Logits> logits = Forward(plan);
  // Where this has to wait for somebody, it counts in the step's duration.
  Deliver(&late_news_);
  const std::vector<StepResult> results = Sample(plan, logits);
  scheduler_.Commit(plan, results, clock_->Now() - start);
  Publish(plan, start);
  const bool busy = !news_.empty();
  if (backend_->runs_ahead() && !failed_) {
    late_news_.swap(news_);
  } else {
    Deliver(&news_);
  }
  return busy;
}

StepEvents EngineImpl::TakeMail() {
  Mail mail = mailbox_.Take();
  phase_ = mail.phase;
  // A model that goes takes with it what its requests' news are about.
  if (!mail.errands.empty()) Deliver(&late_news_);
  for (Errand* const errand : mail.errands) errand->run();
  mailbox_.Done(mail.errands);
  StepEvents events;
  for (Arrival& arrival : mail.arrivals) {
    generations_.emplace(arrival.id, std::move(arrival.generation));
    events.submitted.push_back({arrival.id, std::move(arrival.request)});
  }
  for (const RequestId id : mail.cancels) {
    events.ends.push_back({id, EndCause::kCancelled});
  }
  if (mail.phase == Phase::kServing && leaving_.empty()) return events;
  for (const auto& [id, generation] : generations_) {
    if (generation->ended()) continue;  // its news are late
    if (leaving_.count(generation->model()) == 1) {
      ++ended_leaving_;
    } else if (mail.phase == Phase::kServing ||
               (mail.phase == Phase::kDraining && generation->started())) {
      continue;
    }
    events.ends.push_back({id, EndCause::kError});
  }
  return events;
}

// Looks up whom the plan is about, and ends those that it ends.
void EngineImpl::Attend(const StepPlan& plan, absl::Time now) {
  // Who ends now is to hear first what was said before.
  if (!plan.ended.empty()) Deliver(&late_news_);
  news_.clear();
  for (const StepPart& part : plan.parts) {
    const RequestId id = part.sequence->id;
    news_.push_back({id, generations_.at(id).get()});
    news_.back().generation->Start(part.sequence->cached_tokens, now);
  }
  for (const auto& [id, cause] : plan.ended) {
    news_.push_back({id, generations_.at(id).get()});
    absl::Status status = absl::UnavailableError("the server is shutting down");
    if (leaving_.count(news_.back().generation->model()) == 1) {
      status = absl::UnavailableError("the model is being unloaded");
    } else if (phase_ == Phase::kServing) {
      // It was submitted while another model came.
      status = absl::FailedPreconditionError(
          "the request no longer fits: another model was loaded, and its own "
          "has less of the KV pool");
    }
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
    in.variant = models_[static_cast<size_t>(sequence.model)]->variant.get();
    in.tokens = absl::MakeConstSpan(sequence.tokens)
                    .subspan(static_cast<size_t>(sequence.computed),
                             static_cast<size_t>(part.num_tokens));
    in.past = sequence.computed;
    for (const BlockTable& table : sequence.tables) {
      in.blocks.push_back(table.offsets());
    }
    in.logits_rows = part.logits_rows;
    const Generation& generation = *news_[i].generation;
    in.head_gates = generation.head_gates();
    in.statistics = generation.statistics();
    in.statistics_from = generation.statistics_from();
    in.kept_inputs = generation.kept_inputs();
    in.inputs = generation.inputs();
    in.first_layer = generation.first_layer();
  }
  const EngineModel& model = *models_[static_cast<size_t>(plan.model)];
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
  absl::Status status = logits.status();
  if (status.ok() && !rows.empty()) {
    results = backend_->Sample(logits->data, logits->vocab, rows);
  }
  if (const absl::Status device = backend_->status(); !device.ok()) {
    status = device;
    Fail(device);
  }
  const absl::Time now = clock_->Now();
  size_t begin = 0;
  for (size_t i = 0; i < num_parts; ++i) {
    Generation& generation = *news_[i].generation;
    if (status.ok()) {
      out[i] = generation.Take(
          plan.parts[i],
          absl::MakeConstSpan(results).subspan(begin, ends[i] - begin), now);
    } else {
      generation.End(EndCause::kError, status, now);
      out[i].end = EndCause::kError;
    }
    begin = ends[i];
  }
  return out;
}

void EngineImpl::Fail(const absl::Status& status) {
  if (std::exchange(failed_, true)) return;
  mailbox_.Advance(Phase::kEnding);
  if (failure_handler_ != nullptr) failure_handler_(failure_context_, status);
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

void EngineImpl::Deliver(std::vector<News>* news) {
  for (const News& each : *news) {
    each.generation->Deliver();
    if (each.generation->ended()) generations_.erase(each.id);
  }
  news->clear();
}

EngineSnapshot EngineImpl::Counts() const {
  EngineSnapshot counts = totals_;
  const SchedulerStats stats = scheduler_.Stats();
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
  counts.pool = pool_.bytes();
  counts.pool_capacity = pool_.capacity_bytes();
  counts.queued_tokens = stats.waiting_tokens;
  counts.queued_bytes = stats.waiting_bytes;
  counts.preemptions = stats.preemptions;
  counts.prefix_evictions = stats.evictions;
  return counts;
}

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const EngineOptions& options, std::unique_ptr<Backend> backend,
    std::vector<EngineModel> models, const Clock* clock) {
  absl::StatusOr<std::unique_ptr<Buffer>> arena =
      backend->Allocate(options.kv_pool_bytes);
  if (!arena.ok()) return Of("kv_pool", arena.status());
  auto engine = std::make_unique<EngineImpl>(options, std::move(backend),
                                             *std::move(arena), clock);
  for (EngineModel& model : models) {
    const std::string name = model.name;
    const absl::StatusOr<int> index = engine->AddModel(std::move(model));
    if (!index.ok()) return Of(name, index.status());
  }
  return engine;
}

}  // namespace headcount
