#include "engine/mailbox.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace headcount {
namespace {

// Sleepers look at the clock now and then, because a deadline may be infinite
// or the clock may jump.
constexpr absl::Duration kLongestSleep = absl::Minutes(1);

}  // namespace

OpenModel Mailbox::Find(int index) const {
  MutexLock lock(&mutex_);
  if (index < 0 || index >= static_cast<int>(models_.size())) return {};
  return models_[static_cast<size_t>(index)];
}

absl::StatusOr<RequestId> Mailbox::Submit(
    Request request, const EngineModel* model,
    std::unique_ptr<Generation> generation) {
  MutexLock lock(&mutex_);
  if (mail_.phase != Phase::kServing) {
    return absl::UnavailableError("the server is shutting down");
  }
  const auto index = static_cast<size_t>(request.model);
  if (index >= models_.size() || models_[index].model.get() != model) {
    return absl::UnavailableError("the model has been unloaded");
  }
  const absl::Status queue = CheckQueue(request);
  if (!queue.ok()) return queue;
  CountArrival(request);
  mail_.arrivals.push_back(
      {++last_id_, std::move(request), std::move(generation)});
  has_mail_.NotifyOne();
  return last_id_;
}

bool Mailbox::Do(std::function<void()> run) {
  Errand errand{.run = std::move(run)};
  MutexLock lock(&mutex_);
  if (!open_) return false;
  mail_.errands.push_back(&errand);
  has_mail_.NotifyOne();
  while (!errand.done && open_) quiet_.Wait(&mutex_);
  // The step thread may have left without another look at its mail.
  std::erase(mail_.errands, &errand);
  return errand.done;
}

void Mailbox::CloseModel(int index) {
  MutexLock lock(&mutex_);
  models_[static_cast<size_t>(index)] = {};
}

void Mailbox::AwaitIdle(int index, absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (open_) {
    const EngineSnapshot::PerModel& model =
        counts_.models[static_cast<size_t>(index)];
    if (model.running + model.waiting == 0) return;
    const absl::Duration left = deadline - clock_->Now();
    if (left <= absl::ZeroDuration()) return;
    quiet_.WaitFor(&mutex_, std::min(left, kLongestSleep));
  }
}

void Mailbox::Cancel(RequestId id) {
  MutexLock lock(&mutex_);
  mail_.cancels.push_back(id);
  has_mail_.NotifyOne();
}

void Mailbox::Advance(Phase phase) {
  MutexLock lock(&mutex_);
  mail_.phase = std::max(mail_.phase, phase);
  phase_changed_ = true;
  has_mail_.NotifyOne();
}

void Mailbox::AwaitQuiet(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (!Quiet()) {
    const absl::Duration left = deadline - clock_->Now();
    if (left <= absl::ZeroDuration()) return;
    quiet_.WaitFor(&mutex_, std::min(left, kLongestSleep));
  }
}

EngineSnapshot Mailbox::Snapshot() const {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  EngineSnapshot snapshot = counts_;
  snapshot.tokens_per_second = rate_.At(now);
  return snapshot;
}

void Mailbox::Open() {
  MutexLock lock(&mutex_);
  open_ = true;
}

void Mailbox::Close() {
  MutexLock lock(&mutex_);
  open_ = false;
  quiet_.NotifyAll();
}

bool Mailbox::AwaitMail(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (!HasMail()) {
    if (mail_.phase == Phase::kStopped) return false;
    const absl::Duration left = deadline - clock_->Now();
    if (left <= absl::ZeroDuration()) break;
    sleeping_ = true;
    quiet_.NotifyAll();
    has_mail_.WaitFor(&mutex_, std::min(left, kLongestSleep));
  }
  sleeping_ = false;
  return true;
}

Mail Mailbox::Take() {
  MutexLock lock(&mutex_);
  phase_changed_ = false;
  Mail taken = std::move(mail_);
  mail_ = Mail{};
  mail_.phase = taken.phase;
  return taken;
}

void Mailbox::Done(const std::vector<Errand*>& errands) {
  MutexLock lock(&mutex_);
  for (Errand* const errand : errands) errand->done = true;
  quiet_.NotifyAll();
}

void Mailbox::SetModels(std::vector<OpenModel> models,
                        const QueueLimits& limits) {
  MutexLock lock(&mutex_);
  models_ = std::move(models);
  limits_ = limits;
}

void Mailbox::BeginStep(absl::Time now) {
  MutexLock lock(&mutex_);
  counts_.step_began = now;
}

void Mailbox::Publish(const EngineSnapshot& counts, const TokenRate& rate) {
  MutexLock lock(&mutex_);
  counts_ = counts;
  for (const Arrival& arrival : mail_.arrivals) CountArrival(arrival.request);
  rate_ = rate;
  quiet_.NotifyAll();
}

absl::Status Mailbox::CheckQueue(const Request& request) const {
  int64_t requests = 0;
  for (const EngineSnapshot::PerModel& model : counts_.models) {
    requests += model.waiting;
  }
  if (requests == 0) return absl::OkStatus();
  if (requests < limits_.requests &&
      counts_.queued_tokens + GivenTokens(request) <= limits_.tokens &&
      counts_.queued_bytes + RequestBytes(request) <= limits_.bytes) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "the queue is full: ", requests, " requests of ", counts_.queued_tokens,
      " tokens and ", counts_.queued_bytes, " bytes wait (limits ",
      limits_.requests, ", ", limits_.tokens, " and ", limits_.bytes,
      "); try again later"));
}

void Mailbox::CountArrival(const Request& request) {
  ++counts_.models[static_cast<size_t>(request.model)].waiting;
  counts_.queued_tokens += GivenTokens(request);
  counts_.queued_bytes += RequestBytes(request);
}

}  // namespace headcount
