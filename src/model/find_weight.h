// A tensor that a model has to have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "format/checkpoint.h"
#include "model/weight_names.h"

namespace headcount {

// The tensor `name`, not null. InvalidArgument naming it when it is not there,
// has another shape than `shape`, or a type that is not computed with; vectors
// may not be quantised.
absl::StatusOr<const TensorView*> FindWeight(const Checkpoint& checkpoint,
                                             const WeightNames& names,
                                             const std::string& name,
                                             const std::vector<int64_t>& shape);

}  // namespace headcount
