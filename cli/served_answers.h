// Answers of two served models to the same examples, and how long they took.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/client.h"
#include "cli/fresh_salt.h"
#include "cli/labelled_texts.h"
#include "cli/open_calls.h"
#include "headcount/v1/inference.grpc.pb.h"
#include "headcount/v1/model.pb.h"
#include "prune/comparison.h"

namespace headcount {

// What the server says of a model; an empty name: of the only one.
absl::StatusOr<v1::Model> DescribeModel(const Client& client, OpenCalls* calls,
                                        const std::string& name);

// A model's answer to one text; the labels' probabilities are for Divergence.
struct ServedAnswer {
  Outcome outcome;  // without kl
  std::map<std::string, double> probabilities;
  double milliseconds = 0;
};

// KL(dense || other) of two answers' probabilities, in nats.
double Divergence(const ServedAnswer& dense, const ServedAnswer& other);

// What it is given outlives it.
class Asking {
 public:
  Asking(const Client& client, OpenCalls* calls);

  // With kLogprob it scores the target, else it classifies.
  absl::StatusOr<ServedAnswer> Ask(const std::string& model,
                                   const LabelledText& text, Metric metric);

 private:
  absl::StatusOr<ServedAnswer> Classify(const std::string& model,
                                        const LabelledText& text);
  absl::StatusOr<ServedAnswer> Score(const std::string& model,
                                     const LabelledText& text);
  const Client& client_;
  OpenCalls* const calls_;
  const std::unique_ptr<v1::InferenceService::Stub> stub_;
  FreshSalt salt_;  // times are compared
};

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
