// Answers of two served models to the same examples, and how long they took.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/client.h"
#include "cli/labelled_texts.h"
#include "cli/open_calls.h"
#include "headcount/v1/model.pb.h"
#include "prune/comparison.h"

namespace headcount {

// What the server says of a model; an empty name: of the only one.
absl::StatusOr<v1::Model> DescribeModel(const Client& client, OpenCalls* calls,
                                        const std::string& name);

// Of one model: [example].
struct ServedAnswers {
  // kl is set for the second model with labels only: the divergence of its
  // label probabilities from those of the first. logprob: of the target, nats a
  // token.
  std::vector<Outcome> outcomes;
  std::vector<double> milliseconds;  // of the call, one example each
};

struct ServedPair {
  ServedAnswers dense;
  ServedAnswers pruned;
};

// Asks both models for every text, one call at a time, in turns, so that
// whatever else the machine does hits both. With kLogprob it scores targets,
// else it classifies. `on_progress` gets the examples that are done.
absl::StatusOr<ServedPair> AskBoth(
    const Client& client, OpenCalls* calls, const std::string& dense,
    const std::string& pruned, const std::vector<LabelledText>& texts,
    Metric metric, const std::function<void(int64_t)>& on_progress);

}  // namespace headcount
