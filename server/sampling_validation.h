// The fields of a GenerateRequest that say how tokens are drawn and when the
// answer ends.
#pragma once

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "headcount/v1/inference.pb.h"
#include "server/model_setup.h"

namespace headcount {

// `sampling` and all that stands beside it, as the engine takes it. Errors as
// in validation.h. max_tokens is 0 if the request leaves it open.
absl::StatusOr<SamplingParams> ToSamplingParams(
    const v1::GenerateRequest& request, const ServedModel& model);

}  // namespace headcount
