// An engine without a model, for tests of the server: it holds what it is given
// until the test says what comes of it, or answers at once.
#pragma once

#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mutex.h"
#include "engine/engine.h"

namespace headcount {

// Thread-safe. Sinks hear on the thread of Answer (the test's), of Submit, or
// of Cancel.
class FakeEngine final : public Engine {
 public:
  using Script =
      std::function<void(const Request&, const std::shared_ptr<RequestSink>&)>;

  explicit FakeEngine(int models) {
    snapshot_.models.resize(static_cast<size_t>(models));
    snapshot_.pool = {.used = 0, .cached = 0, .free = 960, .reserved = 64};
    snapshot_.pool_capacity = 1024;
    snapshot_.queued_tokens = 500;
    snapshot_.tokens_per_second = 250;
  }

  // What becomes of each request from now on; without a script it is held.
  void SetScript(Script script) {
    MutexLock lock(&mutex_);
    script_ = std::move(script);
  }
  // From now on Submit returns this.
  void Refuse(absl::Status status) { RefuseAfter(0, std::move(status)); }
  // The same after it has taken so many.
  void RefuseAfter(int taken, absl::Status status) {
    MutexLock lock(&mutex_);
    until_refusal_ = taken;
    refusal_ = std::move(status);
  }
  // Waits until `count` requests are held; returns the newest.
  std::pair<Request, std::shared_ptr<RequestSink>> AwaitHeld(size_t count) {
    MutexLock lock(&mutex_);
    while (held_.size() < count) changed_.Wait(&mutex_);
    return held_.rbegin()->second;
  }
  // Waits until `count` requests are held; ends the newest.
  void EndNewest(size_t count, Ending ending) {
    std::shared_ptr<RequestSink> sink;
    {
      MutexLock lock(&mutex_);
      while (held_.size() < count) changed_.Wait(&mutex_);
      sink = held_.rbegin()->second.second;
      held_.erase(std::prev(held_.end()));
    }
    sink->OnEnd(std::move(ending));
  }
  void AwaitCancels(size_t count) {
    MutexLock lock(&mutex_);
    while (num_cancelled_ < count) changed_.Wait(&mutex_);
  }
  size_t num_cancelled() {
    MutexLock lock(&mutex_);
    return num_cancelled_;
  }
  size_t num_submitted() {
    MutexLock lock(&mutex_);
    return static_cast<size_t>(last_id_);
  }
  Request last_request() {
    MutexLock lock(&mutex_);
    return last_request_;
  }

  static Ending MakeEnding(EndCause cause, int32_t prompt, int32_t generated) {
    Ending ending;
    ending.cause = cause;
    ending.prompt_tokens = prompt;
    ending.generated_tokens = generated;
    ending.submitted = absl::Now();
    ending.scheduled = ending.submitted;
    ending.first_token =
        generated > 0 ? ending.submitted : absl::InfinitePast();
    ending.ended = ending.submitted;
    return ending;
  }

  void SetStepObserver(void (*)(void*, const StepReport&), void*) override {}
  void SetFailureHandler(void (*handler)(void*, const absl::Status&),
                         void* context) override {
    fail_ = [handler, context](const absl::Status& status) {
      handler(context, status);
    };
  }
  // As if the device had failed.
  void Fail(const absl::Status& status) { fail_(status); }
  // A step has run since then; InfiniteFuture: none runs.
  void SetStepBegan(absl::Time began) {
    MutexLock lock(&mutex_);
    snapshot_.step_began = began;
  }
  void Start() override {}
  void Stop() override { EndAll(absl::UnavailableError("stopped")); }

  absl::StatusOr<RequestId> Submit(Request request,
                                   std::shared_ptr<RequestSink> sink) override {
    Script script;
    RequestId id = 0;
    {
      MutexLock lock(&mutex_);
      if (!refusal_.ok() && until_refusal_-- <= 0) return refusal_;
      id = ++last_id_;
      last_request_ = request;
      script = script_;
      if (!script) held_[id] = {request, sink};
      changed_.NotifyAll();
    }
    if (script) script(request, sink);
    return id;
  }

  void Cancel(RequestId id) override {
    std::shared_ptr<RequestSink> sink;
    {
      MutexLock lock(&mutex_);
      const auto found = held_.find(id);
      if (found == held_.end()) return;
      sink = found->second.second;
      held_.erase(found);
      ++num_cancelled_;
      changed_.NotifyAll();
    }
    sink->OnEnd(MakeEnding(EndCause::kCancelled, 1, 0));
  }

  void Drain(absl::Time) override {
    Refuse(absl::UnavailableError("draining"));
    EndAll(absl::UnavailableError("the server is shutting down"));
  }

  EngineSnapshot Snapshot() const override {
    MutexLock lock(&mutex_);
    return snapshot_;
  }
  absl::StatusOr<int> AddModel(EngineModel) override {
    return absl::UnimplementedError("a fake");
  }
  absl::StatusOr<int> RemoveModel(int, absl::Time) override { return 0; }
  std::shared_ptr<const EngineModel> model(int) const override {
    return nullptr;
  }
  Backend* backend() const override { return nullptr; }
  bool StepOnce() override { return false; }

 private:
  void EndAll(const absl::Status& status) {
    std::map<RequestId, std::pair<Request, std::shared_ptr<RequestSink>>> held;
    {
      MutexLock lock(&mutex_);
      held.swap(held_);
    }
    for (auto& [id, request] : held) {
      Ending ending = MakeEnding(EndCause::kError, 1, 0);
      ending.status = status;
      request.second->OnEnd(std::move(ending));
    }
  }

  mutable Mutex mutex_;
  CondVar changed_;
  std::function<void(const absl::Status&)> fail_;
  Script script_ ABSL_GUARDED_BY(mutex_);
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  int until_refusal_ ABSL_GUARDED_BY(mutex_) = 0;
  RequestId last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  Request last_request_ ABSL_GUARDED_BY(mutex_);
  size_t num_cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<RequestId, std::pair<Request, std::shared_ptr<RequestSink>>> held_
      ABSL_GUARDED_BY(mutex_);
  EngineSnapshot snapshot_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace headcount
