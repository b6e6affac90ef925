// What every service of the server works with.
#pragma once

#include <functional>

#include "absl/time/time.h"
#include "base/clock.h"
#include "engine/engine.h"
#include "server/admission.h"
#include "server/config.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/model_lifecycle.h"
#include "server/model_table.h"

namespace headcount {

// What it points at outlives the services and their calls.
struct Serving {
  const ModelTable* models = nullptr;
  ModelLifecycle* lifecycle = nullptr;
  Engine* engine = nullptr;
  Admission* admission = nullptr;
  Metrics* metrics = nullptr;
  const Log* log = nullptr;
  const Clock* clock = nullptr;
  EngineOptions options;
  absl::Duration drain_deadline;
  Admin admin = Admin::kLocal;
  std::function<void()> begin_drain;  // as SIGTERM does
};

}  // namespace headcount
