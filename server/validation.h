// Requests of clients, checked and turned into requests of the engine. Cheap
// checks come first; text is tokenised last.
//
// Errors are those of errors.h, with the path of the field.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/request.h"
#include "headcount/v1/inference.pb.h"
#include "server/model_setup.h"

namespace headcount {

absl::StatusOr<Request> ToEngineRequest(const v1::GenerateRequest& request,
                                        const ServedModel& model);

// Its continuations are the candidates, or the one continuation; there is none
// when that is one token after nothing.
absl::StatusOr<Request> ToEngineRequest(const v1::ScoreRequest& request,
                                        const ServedModel& model);

// One engine request for each input; its continuations are the labels.
absl::StatusOr<std::vector<Request>> ToEngineRequests(
    const v1::ClassifyRequest& request, const ServedModel& model);

// FailedPrecondition for a model that has no labels.
absl::Status CheckClassifies(const ServedModel& model);

absl::Status CheckTokenizeRequest(const v1::TokenizeRequest& request);
absl::Status CheckDetokenizeRequest(const v1::DetokenizeRequest& request,
                                    const ServedModel& model);

}  // namespace headcount
