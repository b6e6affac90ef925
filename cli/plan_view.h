// How a capacity plan looks, as text and as JSON.
#pragma once

#include <string>
#include <vector>

#include "cli/gpus.h"
#include "cli/output.h"
#include "cli/plan_local.h"
#include "headcount/v1/model.pb.h"

namespace headcount {

// The plan beside that of all heads in f16; one column where they are equal.
std::string RenderPlan(const v1::CapacityPlan& all_heads,
                       const v1::CapacityPlan& plan, const Device& device);
Json PlanJson(const v1::CapacityPlan& plan, const Device& device);

// Sequences by share of KV groups (rows) and dtype (columns).
std::string RenderSweep(const std::vector<SweepLine>& lines);
Json SweepJson(const std::vector<SweepLine>& lines, const Device& device);

}  // namespace headcount
