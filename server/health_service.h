// grpc.health.v1.Health
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
//
// Names: "", "liveness", "readiness", each service, and "model/<name>". All but
// two kinds follow the server's readiness: "liveness" serves until the end, so
// that a draining server is not killed for it, and a model that is not loaded
// does not serve.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "server/metrics.h"

namespace headcount {

// Thread-safe.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // Knows "", "liveness", "readiness", `names` and `never_serving`; NOT_SERVING
  // at first, but for "liveness". `metrics` outlives it.
  HealthService(const std::vector<std::string>& names,
                const std::vector<std::string>& never_serving,
                Metrics* metrics);

  // Tells every watcher whose status changes. Nothing after Retire.
  void SetServing(bool serving);
  // Not serving, from now on for good.
  void Retire();
  // Whether "model/<name>" follows the server's readiness from now on.
  void SetModel(const std::string& name, bool loaded);
  // Ends all Watch calls, now and in the future, so that the server can shut
  // down.
  void EndWatches();

  grpc::ServerUnaryReactor* Check(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request,
      grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerUnaryReactor* List(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthListRequest* request,
      grpc::health::v1::HealthListResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  void Tell(bool serving) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Status StatusOf(const std::string& name) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Puts the watcher down for changes and tells it the status of now.
  void Add(Watcher* watcher);
  void Remove(Watcher* watcher);

  Metrics* const metrics_;
  Mutex mutex_;
  bool serving_ ABSL_GUARDED_BY(mutex_) = false;
  bool retired_ ABSL_GUARDED_BY(mutex_) = false;
  // Names that SetServing leaves as they are.
  std::set<std::string> fixed_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Status> statuses_ ABSL_GUARDED_BY(mutex_);
  std::set<Watcher*> watchers_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace headcount
