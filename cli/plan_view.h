// How a capacity plan looks, as text and as JSON.
#pragma once

#include <string>
#include <vector>

#include "cli/gpus.h"
#include "cli/output.h"
#include "cli/plan_local.h"
#include "headcount/v1/model.pb.h"
#include "model/model_shape.h"

namespace headcount {

// The plan beside that of all heads in f16; one column where they are equal.
std::string RenderPlan(const v1::CapacityPlan& all_heads,
                       const v1::CapacityPlan& plan, const Device& device);
// What GPUs that compute every layer together tell each other: after the
// embedding, attention and the MLP each has a part of the sum that is read
// next.
std::string RenderExchange(const ModelShape& shape,
                           const v1::CapacityPlan& plan, int gpus);
Json PlanJson(const v1::CapacityPlan& plan, const Device& device);

// Sequences by share of KV groups (rows) and dtype (columns).
std::string RenderSweep(const std::vector<SweepLine>& lines);
Json SweepJson(const std::vector<SweepLine>& lines, const Device& device);

}  // namespace headcount
