// The capacity plan of a model as clients see it, for PlanCapacity and for
// `headcount plan`.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "headcount/v1/model.pb.h"
#include "heads/capacity_plan.h"
#include "heads/head_layout.h"
#include "model/model_shape.h"
#include "server/model_setup.h"

namespace headcount {

struct WeightCost {
  int64_t parameters = 0;
  int64_t bytes = 0;
};

// All but sequences_scheduled. `layout` is of `shape`; an encoder caches
// nothing, whatever the pool. InvalidArgument when a size overflows.
absl::StatusOr<v1::CapacityPlan> DescribeCapacity(const ModelShape& shape,
                                                  const HeadLayout& layout,
                                                  const WeightCost& weights,
                                                  const PoolPlanSpec& pool);

// Answers a request about a loaded model, or says which field is wrong.
absl::Status PlanServedModel(const ServedModel& model,
                             const EngineOptions& options,
                             const v1::PlanCapacityRequest& request,
                             v1::PlanCapacityResponse* response);

}  // namespace headcount
