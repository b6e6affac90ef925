#include "server/health_service.h"

#include <optional>
#include <utility>

#include "absl/time/clock.h"

namespace headcount {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using grpc::health::v1::HealthListRequest;
using grpc::health::v1::HealthListResponse;

namespace {

constexpr char kLiveness[] = "liveness";

grpc::ServerUnaryReactor* FinishCounted(grpc::CallbackServerContext* context,
                                        RpcMethod method, absl::Time arrival,
                                        const grpc::Status& status,
                                        Metrics* metrics) {
  metrics->CallHandled(method, status.error_code(), absl::Now() - arrival);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace

// One Watch call. A change that comes while a write is in flight waits; of
// several, only the last is sent.
class HealthService::Watcher final
    : public grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  Watcher(HealthService* service, std::string name)
      : service_(service), name_(std::move(name)), arrival_(absl::Now()) {
    service_->metrics_->CallStarted(RpcMethod::kHealthWatch);
    service_->Add(this);
  }

  const std::string& name() const { return name_; }

  // Called with the service's mutex held, which OnDone needs before it deletes.
  void Tell(Status status) {
    {
      MutexLock lock(&mutex_);
      next_ = status;
    }
    Pump();
  }
  void End(const grpc::Status& status) {
    {
      MutexLock lock(&mutex_);
      end_ = status;
    }
    Pump();
  }

  void OnWriteDone(bool) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
    }
    Pump();
  }
  void OnCancel() override { End(grpc::Status::CANCELLED); }
  void OnDone() override {
    service_->Remove(this);
    delete this;
  }

 private:
  // Starts the next operation, if there is one to start.
  void Pump() {
    std::optional<grpc::Status> finish;
    bool write = false;
    {
      MutexLock lock(&mutex_);
      if (writing_ || finished_) return;
      if (end_.has_value()) {
        finished_ = true;
        finish = end_;
      } else if (next_.has_value() && next_ != sent_) {
        writing_ = write = true;
        sent_ = next_;
        response_.set_status(*next_);
      }
    }
    if (write) StartWrite(&response_);
    if (finish.has_value()) {
      service_->metrics_->CallHandled(RpcMethod::kHealthWatch,
                                      finish->error_code(),
                                      absl::Now() - arrival_);
      Finish(*finish);
    }
  }

  HealthService* const service_;
  const std::string name_;
  const absl::Time arrival_;
  HealthCheckResponse response_;  // gRPC's while writing_
  Mutex mutex_;
  std::optional<Status> next_ ABSL_GUARDED_BY(mutex_);
  std::optional<Status> sent_ ABSL_GUARDED_BY(mutex_);
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

HealthService::HealthService(const std::vector<std::string>& names,
                             const std::vector<std::string>& never_serving,
                             Metrics* metrics)
    : metrics_(metrics), fixed_(never_serving.begin(), never_serving.end()) {
  fixed_.insert(kLiveness);
  for (const std::string& name : never_serving) {
    statuses_[name] = HealthCheckResponse::NOT_SERVING;
  }
  statuses_[""] = statuses_["readiness"] = HealthCheckResponse::NOT_SERVING;
  statuses_[kLiveness] = HealthCheckResponse::SERVING;
  for (const std::string& name : names) {
    statuses_[name] = HealthCheckResponse::NOT_SERVING;
  }
}

void HealthService::SetServing(bool serving) {
  MutexLock lock(&mutex_);
  if (!retired_) Tell(serving);
}

void HealthService::Retire() {
  MutexLock lock(&mutex_);
  retired_ = true;
  Tell(false);
}

void HealthService::Tell(bool serving) {
  serving_ = serving;
  for (auto& [name, status] : statuses_) {
    if (fixed_.count(name) > 0) continue;
    status = serving ? HealthCheckResponse::SERVING
                     : HealthCheckResponse::NOT_SERVING;
  }
  for (Watcher* watcher : watchers_) watcher->Tell(StatusOf(watcher->name()));
}

void HealthService::SetModel(const std::string& name, bool loaded) {
  const std::string key = "model/" + name;
  MutexLock lock(&mutex_);
  if (loaded) {
    fixed_.erase(key);
  } else {
    fixed_.insert(key);
  }
  statuses_[key] = loaded && serving_ ? HealthCheckResponse::SERVING
                                      : HealthCheckResponse::NOT_SERVING;
  for (Watcher* watcher : watchers_) watcher->Tell(StatusOf(watcher->name()));
}

void HealthService::EndWatches() {
  MutexLock lock(&mutex_);
  ended_ = true;
  for (Watcher* watcher : watchers_) {
    watcher->End({grpc::StatusCode::UNAVAILABLE, "the server is ending"});
  }
}

grpc::ServerUnaryReactor* HealthService::Check(
    grpc::CallbackServerContext* context, const HealthCheckRequest* request,
    HealthCheckResponse* response) {
  const absl::Time arrival = absl::Now();
  metrics_->CallStarted(RpcMethod::kHealthCheck);
  Status status;
  {
    MutexLock lock(&mutex_);
    status = StatusOf(request->service());
  }
  if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
    return FinishCounted(
        context, RpcMethod::kHealthCheck, arrival,
        {grpc::StatusCode::NOT_FOUND, "service: not known to this server"},
        metrics_);
  }
  response->set_status(status);
  return FinishCounted(context, RpcMethod::kHealthCheck, arrival,
                       grpc::Status::OK, metrics_);
}

grpc::ServerUnaryReactor* HealthService::List(
    grpc::CallbackServerContext* context, const HealthListRequest*,
    HealthListResponse* response) {
  const absl::Time arrival = absl::Now();
  metrics_->CallStarted(RpcMethod::kHealthList);
  {
    MutexLock lock(&mutex_);
    for (const auto& [name, status] : statuses_) {
      (*response->mutable_statuses())[name].set_status(status);
    }
  }
  return FinishCounted(context, RpcMethod::kHealthList, arrival,
                       grpc::Status::OK, metrics_);
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext*, const HealthCheckRequest* request) {
  return new Watcher(this, request->service());
}

HealthService::Status HealthService::StatusOf(const std::string& name) const {
  const auto found = statuses_.find(name);
  return found == statuses_.end() ? HealthCheckResponse::SERVICE_UNKNOWN
                                  : found->second;
}

void HealthService::Add(Watcher* watcher) {
  MutexLock lock(&mutex_);
  watchers_.insert(watcher);
  if (ended_) {
    watcher->End({grpc::StatusCode::UNAVAILABLE, "the server is ending"});
  } else {
    watcher->Tell(StatusOf(watcher->name()));
  }
}

void HealthService::Remove(Watcher* watcher) {
  MutexLock lock(&mutex_);
  watchers_.erase(watcher);
}

}  // namespace headcount
