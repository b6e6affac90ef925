// Looks after the device while the server serves: a step that does not end
// makes it not ready until it ends, and an error that stays ends it, so that a
// supervisor starts it anew.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "engine/engine.h"
#include "server/engine_collector.h"
#include "server/health_service.h"
#include "server/log.h"

namespace headcount {

// Thread-safe. What it points to outlives it.
class DeviceWatch {
 public:
  struct Watched {
    Engine* engine;
    HealthService* health;
    const std::atomic<ServerState>* state;
    const Log* log;
    std::function<void()> begin_drain;  // must not block
  };

  // Sets the engine's failure handler.
  explicit DeviceWatch(Watched watched);
  ~DeviceWatch() { Stop(); }
  DeviceWatch(const DeviceWatch&) = delete;
  DeviceWatch& operator=(const DeviceWatch&) = delete;

  void Start();  // a thread that looks every second
  void Stop();
  // Whether the step that runs now, if one does, has hung by `now`.
  void Look(absl::Time now);

  // Unavailable once the device has failed.
  absl::Status status() const;

 private:
  void Run();
  void Fail(const absl::Status& status);

  const Watched watched_;
  mutable Mutex mutex_;
  CondVar stopped_changed_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = true;
  bool hangs_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace headcount
