// Loads and unloads configured models while others are served: one at a time,
// on a thread of its own.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "engine/engine.h"
#include "headcount/config/v1/config.pb.h"
#include "headcount/v1/model.pb.h"
#include "server/health_service.h"
#include "server/log.h"
#include "server/model_table.h"

namespace headcount {

struct UnloadedModel {
  int requests_ended = 0;  // because they took too long
  int64_t weight_bytes = 0;
};

// Thread-safe. What it is given outlives it.
class ModelLifecycle {
 public:
  // What a load has come to; the bytes are those of STAGE_READING.
  struct Progress {
    v1::LoadModelResponse::Stage stage;
    int64_t read_bytes = 0;
    int64_t total_bytes = 0;
  };

  ModelLifecycle(const config::v1::ServerConfig& config, Engine* engine,
                 ModelTable* models, HealthService* health, const Log* log);
  ~ModelLifecycle() { Stop(); }

  // These return at once; the callbacks come on the thread, `done` exactly
  // once. NotFound for a name that is not configured; FailedPrecondition with
  // the reason for a model that does not load or does not fit the pool, of
  // which nothing stays then, and for a variant whose base is not loaded. A
  // model that is loaded already is ready at once.
  void Load(std::string name, std::function<void(const Progress&)> progress,
            std::function<void(absl::Status)> done);
  // FailedPrecondition for a model that is not loaded, and for one that has
  // variants which are.
  void Unload(std::string name, absl::Duration deadline,
              std::function<void(absl::StatusOr<UnloadedModel>)> done);

  // Ends what has not begun with Unavailable, and waits for what has.
  void Stop();

 private:
  // What the thread has to do, or how it ends when the server stops.
  using Errand = std::function<void(bool stopped)>;

  void Post(Errand errand);
  void Run();
  absl::Status LoadNow(const std::string& name,
                       const std::function<void(const Progress&)>& progress);
  // asked: a name, or nothing for the only model.
  absl::StatusOr<UnloadedModel> UnloadNow(const std::string& asked,
                                          absl::Duration deadline);
  absl::Status Fail(const config::v1::ModelSpec& spec,
                    const absl::Status& status);

  const EngineOptions options_;
  const std::map<std::string, config::v1::ModelSpec> specs_;
  Engine* const engine_;
  ModelTable* const models_;
  HealthService* const health_;
  const Log* const log_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<Errand> errands_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // started by the constructor
};

}  // namespace headcount
