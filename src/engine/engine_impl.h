// The one Engine that there is; see engine.h.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "engine/generation.h"
#include "engine/mailbox.h"
#include "engine/scheduler.h"
#include "engine/token_rate.h"

namespace headcount {

class EngineImpl final : public Engine {
 public:
  EngineImpl(const EngineOptions& options, std::unique_ptr<Backend> backend,
             std::unique_ptr<Buffer> arena, const Clock* clock);
  ~EngineImpl() override { Stop(); }

  void SetStepObserver(void (*observer)(void*, const StepReport&),
                       void* context) override {
    observer_ = observer;
    observer_context_ = context;
  }

  void SetFailureHandler(void (*handler)(void*, const absl::Status&),
                         void* context) override {
    failure_handler_ = handler;
    failure_context_ = context;
  }

  void Start() override;
  void Stop() override;
  absl::StatusOr<int> AddModel(EngineModel model) override;
  absl::StatusOr<int> RemoveModel(int index, absl::Time deadline) override;
  std::shared_ptr<const EngineModel> model(int index) const override {
    return mailbox_.Find(index).model;
  }
  absl::StatusOr<RequestId> Submit(Request request,
                                   std::shared_ptr<RequestSink> sink) override;
  void Cancel(RequestId id) override { mailbox_.Cancel(id); }
  void Drain(absl::Time deadline) override;
  EngineSnapshot Snapshot() const override { return mailbox_.Snapshot(); }
  Backend* backend() const override { return backend_.get(); }
  bool StepOnce() override;

 private:
  void Run();
  // Between two steps, wherever those run. Whether that is the step thread.
  bool Do(const std::function<void()>& errand);
  absl::StatusOr<int> Take(std::shared_ptr<const EngineModel> model);
  absl::Status Close(int index);
  void OpenModels();
  StepEvents TakeMail();
  void Attend(const StepPlan& plan, absl::Time now);
  absl::StatusOr<Logits> Forward(const StepPlan& plan);
  std::vector<StepResult> Sample(const StepPlan& plan,
                                 const absl::StatusOr<Logits>& logits);
  // The device is lost: nothing begins and nothing goes on any more.
  void Fail(const absl::Status& status);
  void Publish(const StepPlan& plan, absl::Time start);
  struct News {
    RequestId id;
    Generation* generation;
  };
  void Deliver(std::vector<News>* news);
  QueueLimits MakeQueueLimits() const;
  EngineSnapshot Counts() const;

  const EngineOptions options_;
  const Clock* const clock_;
  const std::unique_ptr<Backend> backend_;
  const std::unique_ptr<Buffer> arena_;
  void (*observer_)(void*, const StepReport&) = nullptr;
  void* observer_context_ = nullptr;
  void (*failure_handler_)(void*, const absl::Status&) = nullptr;
  void* failure_context_ = nullptr;

  // The step thread's own.
  BlockPool pool_;
  Scheduler scheduler_;
  std::vector<std::shared_ptr<const EngineModel>> models_;  // null: removed
  std::set<int> closed_;   // models that take no more requests or variants
  std::set<int> leaving_;  // models whose requests are to end
  int ended_leaving_ = 0;  // requests that were
  std::map<RequestId, std::unique_ptr<Generation>> generations_;
  std::vector<News> news_;  // of this step: [plan.parts], then [plan.ended]
  // Of the step before, not delivered yet: while the device computes the next
  // one there is time.
  std::vector<News> late_news_;
  bool failed_ = false;
  Phase phase_ = Phase::kServing;  // as of the last mail
  EngineSnapshot totals_;          // only what adds up from step to step
  TokenRate rate_;

  Mailbox mailbox_;
  std::thread thread_;
};

}  // namespace headcount
