// Requests of clients, checked and turned into requests of the engine. Cheap
// checks come first; text is tokenised last.
//
// Errors are those of errors.h, with the path of the field.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/request.h"
#include "headcount/v1/inference.pb.h"
#include "server/model_setup.h"

namespace headcount {

absl::StatusOr<Request> ToEngineRequest(const v1::GenerateRequest& request,
                                        const ServedModel& model);

// score_from is absent when the continuation is one token after nothing.
absl::StatusOr<Request> ToEngineRequest(const v1::ScoreRequest& request,
                                        const ServedModel& model);

// One engine request for an input where every label is one token (its
// candidates are the labels); otherwise one for each label, which scores the
// label's tokens. By input, then label.
absl::StatusOr<std::vector<Request>> ToEngineRequests(
    const v1::ClassifyRequest& request, const ServedModel& model);
// Whether the first kind applies.
bool LabelsAreCandidates(const ClassifySetup& setup);
size_t SequencesPerInput(const ClassifySetup& setup);

absl::Status CheckTokenizeRequest(const v1::TokenizeRequest& request);
absl::Status CheckDetokenizeRequest(const v1::DetokenizeRequest& request,
                                    const ServedModel& model);

}  // namespace headcount
