// Models and the pool as clients see them.
#pragma once

#include "engine/engine.h"
#include "headcount/v1/model.pb.h"
#include "server/model_table.h"

namespace headcount {

// What is true now of a configured model; of one that did not load, why.
v1::Model DescribeModel(const ModelEntry& entry, const EngineSnapshot& snapshot,
                        bool draining);

v1::Pool DescribePool(const std::vector<ModelEntry>& models,
                      const EngineSnapshot& snapshot);

}  // namespace headcount
