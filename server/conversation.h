// Conversations of clients, checked and turned into prompts.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "headcount/v1/inference.pb.h"
#include "server/model_setup.h"

namespace headcount {

// The prompt in the model's chat template. Errors are those of errors.h, with
// the path of the field; FAILED_PRECONDITION where the template is not known.
absl::StatusOr<std::vector<int32_t>> ConversationPrompt(
    const v1::Conversation& conversation, const ServedModel& model);

// The answer to a conversation ends with the assistant's turn. Nothing for
// other prompts.
void StopAtEndOfTurn(const v1::GenerateRequest& request,
                     const ServedModel& model, SamplingParams* sampling);

}  // namespace headcount
