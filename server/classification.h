// From log-probabilities of labels to an answer.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "headcount/v1/inference.pb.h"
#include "server/model_setup.h"

namespace headcount {

// `logprobs` of some labels as if there were no others: their probabilities sum
// to 1.
std::vector<double> NormalisedLogprobs(absl::Span<const double> logprobs);

// `logprobs` are the model's own, one for each label of `setup`. Probabilities
// are normalised among the labels (softmax), likeliest first; equal ones keep
// the order of the configuration.
v1::Classification Classify(const ClassifySetup& setup,
                            absl::Span<const double> logprobs,
                            int32_t prompt_tokens);

}  // namespace headcount
