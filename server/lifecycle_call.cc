#include "server/lifecycle_call.h"

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "server/call_record.h"
#include "server/errors.h"
#include "server/immediate_call.h"
#include "server/limits.h"
#include "server/model_description.h"

namespace headcount {
namespace {

// Stages come on the lifecycle's thread, faster than a client reads them.
class LoadCall final : public grpc::ServerWriteReactor<v1::LoadModelResponse>,
                       public std::enable_shared_from_this<LoadCall> {
 public:
  LoadCall(const Serving* serving, grpc::CallbackServerContext* context)
      : serving_(serving), record_(RpcMethod::kLoadModel, context, serving) {}

  void Start(const std::string& name) {
    self_ = shared_from_this();
    record_.NameModel(name);
    const absl::Status allowed = record_.CheckAdmin();
    if (!allowed.ok()) return End(allowed);
    const auto self = self_;
    serving_->lifecycle->Load(
        name,
        [self](const ModelLifecycle::Progress& progress) {
          self->Tell(progress);
        },
        [self, name](const absl::Status& status) {
          if (status.ok()) self->TellReady(name);
          self->End(status);
        });
  }

  void OnWriteDone(bool) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
    }
    Pump();
  }
  // The load goes on; who asked for it does not hear of it.
  void OnCancel() override { End(absl::CancelledError("cancelled")); }
  void OnDone() override {
    record_.WriteLog();
    self_.reset();
  }

 private:
  void Tell(const ModelLifecycle::Progress& progress) {
    v1::LoadModelResponse response;
    response.set_stage(progress.stage);
    response.set_read_bytes(progress.read_bytes);
    response.set_total_bytes(progress.total_bytes);
    Queue(std::move(response));
  }

  void TellReady(const std::string& name) {
    v1::LoadModelResponse response;
    response.set_stage(v1::LoadModelResponse::STAGE_READY);
    const std::optional<ModelEntry> entry = serving_->models->FindEntry(name);
    if (entry.has_value()) {
      *response.mutable_model() =
          DescribeModel(*entry, serving_->engine->Snapshot(), false);
      response.mutable_model()->clear_layers();
    }
    Queue(std::move(response));
  }

  // A slow client gets the latest bytes that were read, not all of them.
  void Queue(v1::LoadModelResponse response) {
    response.set_elapsed_ms(
        absl::ToDoubleMilliseconds(serving_->clock->Now() - record_.arrival()));
    {
      MutexLock lock(&mutex_);
      if (response.total_bytes() > 0 && !stages_.empty() &&
          stages_.back().total_bytes() > 0) {
        stages_.back() = std::move(response);
      } else {
        stages_.push_back(std::move(response));
      }
    }
    Pump();
  }

  void End(absl::Status status) {
    {
      MutexLock lock(&mutex_);
      if (!end_.has_value()) end_ = std::move(status);
    }
    Pump();
  }

  // Starts the next operation, if there is one to start.
  void Pump() {
    bool write = false;
    std::optional<grpc::Status> finish;
    {
      MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      if (!stages_.empty()) {
        response_ = std::move(stages_.front());
        stages_.pop_front();
        writing_ = write = true;
      } else if (end_.has_value()) {
        finished_ = true;
        finish = record_.Conclude(*end_);
      }
    }
    if (write) StartWrite(&response_);
    if (finish.has_value()) Finish(*finish);
  }

  const Serving* const serving_;
  CallRecord record_;
  std::shared_ptr<LoadCall> self_;  // until OnDone
  v1::LoadModelResponse response_;  // gRPC's while writing_
  Mutex mutex_;
  std::deque<v1::LoadModelResponse> stages_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

class UnloadCall final : public grpc::ServerUnaryReactor,
                         public std::enable_shared_from_this<UnloadCall> {
 public:
  UnloadCall(const Serving* serving, grpc::CallbackServerContext* context,
             v1::UnloadModelResponse* response)
      : serving_(serving),
        record_(RpcMethod::kUnloadModel, context, serving),
        response_(response) {}

  void Start(const v1::UnloadModelRequest& request) {
    self_ = shared_from_this();
    record_.NameModel(request.name());
    const absl::Status allowed = record_.CheckAdmin();
    if (!allowed.ok()) return End(allowed);
    absl::Duration deadline = serving_->drain_deadline;
    if (request.has_deadline_seconds()) {
      const double seconds = request.deadline_seconds();
      if (!(seconds >= 0 &&
            seconds <= absl::ToDoubleSeconds(kMaxDrainDeadline))) {
        return End(FieldError("deadline_seconds", "is not from 0 to 3600"));
      }
      deadline = absl::Seconds(seconds);
    }
    const auto self = self_;
    serving_->lifecycle->Unload(
        request.name(), deadline,
        [self](const absl::StatusOr<UnloadedModel>& unloaded) {
          if (unloaded.ok()) {
            self->response_->set_requests_ended(unloaded->requests_ended);
            self->response_->set_weight_bytes(unloaded->weight_bytes);
          }
          self->End(unloaded.status());
        });
  }

  void OnDone() override {
    record_.WriteLog();
    self_.reset();
  }

 private:
  void End(const absl::Status& status) { Finish(record_.Conclude(status)); }

  const Serving* const serving_;
  CallRecord record_;
  v1::UnloadModelResponse* const response_;
  std::shared_ptr<UnloadCall> self_;  // until OnDone
};

}  // namespace

grpc::ServerWriteReactor<v1::LoadModelResponse>* StartLoadCall(
    const Serving* serving, grpc::CallbackServerContext* context,
    const v1::LoadModelRequest& request) {
  const auto call = std::make_shared<LoadCall>(serving, context);
  call->Start(request.name());
  return call.get();
}

grpc::ServerUnaryReactor* StartUnloadCall(const Serving* serving,
                                          grpc::CallbackServerContext* context,
                                          const v1::UnloadModelRequest& request,
                                          v1::UnloadModelResponse* response) {
  const auto call = std::make_shared<UnloadCall>(serving, context, response);
  call->Start(request);
  return call.get();
}

grpc::ServerUnaryReactor* StartDrainCall(const Serving* serving,
                                         grpc::CallbackServerContext* context) {
  CallRecord record(RpcMethod::kDrain, context, serving);
  const absl::Status allowed = record.CheckAdmin();
  grpc::ServerUnaryReactor* const reactor =
      FinishNow(context, allowed, &record);
  if (allowed.ok()) serving->begin_drain();
  return reactor;
}

}  // namespace headcount
