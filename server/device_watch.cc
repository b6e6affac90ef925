#include "server/device_watch.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/limits.h"

namespace headcount {
namespace {

constexpr absl::Duration kBetweenLooks = absl::Seconds(1);

}  // namespace

DeviceWatch::DeviceWatch(Watched watched) : watched_(std::move(watched)) {
  watched_.engine->SetFailureHandler(
      [](void* self, const absl::Status& status) {
        static_cast<DeviceWatch*>(self)->Fail(status);
      },
      this);
}

void DeviceWatch::Start() {
  {
    MutexLock lock(&mutex_);
    stopped_ = false;
  }
  thread_ = std::thread([this] { Run(); });
}

void DeviceWatch::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    stopped_changed_.NotifyAll();
  }
  if (thread_.joinable()) thread_.join();
}

void DeviceWatch::Run() {
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (!stopped_) stopped_changed_.WaitFor(&mutex_, kBetweenLooks);
      if (stopped_) return;
    }
    Look(absl::Now());
  }
}

void DeviceWatch::Look(absl::Time now) {
  const absl::Duration running = now - watched_.engine->Snapshot().step_began;
  const bool hangs = running > kStepHangs;
  {
    MutexLock lock(&mutex_);
    if (hangs == hangs_ || !status_.ok()) return;
    hangs_ = hangs;
  }
  if (hangs) {
    watched_.log->Error(
        "the device hangs",
        LogFields().Add("step_seconds",
                        absl::StrCat(absl::ToInt64Seconds(running))));
    watched_.health->SetServing(false);
    return;
  }
  watched_.log->Info("the device goes on");
  if (*watched_.state == ServerState::kServing) {
    watched_.health->SetServing(true);
  }
}

void DeviceWatch::Fail(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    status_ = status;
  }
  watched_.log->Error("the device has failed",
                      LogFields().Add("error", status.message()));
  watched_.health->Retire();
  watched_.begin_drain();
}

absl::Status DeviceWatch::status() const {
  MutexLock lock(&mutex_);
  return status_;
}

}  // namespace headcount
