// What every service of the server works with.
#pragma once

#include "base/clock.h"
#include "server/admission.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/model_table.h"

namespace headcount {

// Points only; all of it outlives the services and their calls.
struct Serving {
  const ModelTable* models = nullptr;
  Engine* engine = nullptr;
  Admission* admission = nullptr;
  Metrics* metrics = nullptr;
  const Log* log = nullptr;
  const Clock* clock = nullptr;
};

}  // namespace headcount
