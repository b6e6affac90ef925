#include "cli/served_answers.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/time/clock.h"
#include "headcount/v1/model.grpc.pb.h"

namespace headcount {
namespace {

// Of a label that a model gives no chance at all.
constexpr double kLeastProbability = 1e-12;

void KeepAnswer(ServedAnswer answer, ServedAnswers* answers) {
  answers->outcomes.push_back(std::move(answer.outcome));
  answers->milliseconds.push_back(answer.milliseconds);
}

}  // namespace

double Divergence(const ServedAnswer& dense, const ServedAnswer& other) {
  double kl = 0;
  for (const auto& [label, p] : dense.probabilities) {
    if (p <= 0) continue;
    const auto found = other.probabilities.find(label);
    const double q = found == other.probabilities.end() ? 0 : found->second;
    kl += p * std::log(p / std::max(q, kLeastProbability));
  }
  return std::max(0.0, kl);  // float32 probabilities
}

Asking::Asking(const Client& client, OpenCalls* calls)
    : client_(client),
      calls_(calls),
      stub_(v1::InferenceService::NewStub(client.channel())) {}

absl::StatusOr<ServedAnswer> Asking::Ask(const std::string& model,
                                         const LabelledText& text,
                                         Metric metric) {
  return metric == Metric::kLogprob ? Score(model, text)
                                    : Classify(model, text);
}

absl::StatusOr<ServedAnswer> Asking::Classify(const std::string& model,
                                              const LabelledText& text) {
  v1::ClassifyRequest request;
  request.set_model(model);
  request.set_cache_salt(salt_.Next());
  request.add_inputs(text.text);
  v1::ClassifyResponse response;
  OpenCalls::Call call(calls_, client_);
  const absl::Time start = absl::Now();
  absl::Status status =
      client_.Check(stub_->Classify(call.context(), request, &response));
  if (!status.ok()) return status;
  ServedAnswer answer;
  answer.milliseconds = absl::ToDoubleMilliseconds(absl::Now() - start);
  if (response.results_size() != 1) {
    return absl::InternalError("the server did not answer one text");
  }
  const v1::Classification& result = response.results(0);
  answer.outcome.label = result.label();
  answer.outcome.right = result.label() == text.label;
  for (const v1::LabelProbability& label : result.labels()) {
    answer.probabilities[label.label()] = label.probability();
  }
  return answer;
}

absl::StatusOr<ServedAnswer> Asking::Score(const std::string& model,
                                           const LabelledText& text) {
  v1::ScoreRequest request;
  request.set_model(model);
  request.set_cache_salt(salt_.Next());
  if (text.prompt_tokens.empty()) {
    request.set_prompt_text(text.text);
  } else {
    request.mutable_prompt_tokens()->mutable_ids()->Add(
        text.prompt_tokens.begin(), text.prompt_tokens.end());
  }
  request.set_continuation_text(text.target);
  v1::ScoreResponse response;
  OpenCalls::Call call(calls_, client_);
  const absl::Time start = absl::Now();
  absl::Status status =
      client_.Check(stub_->Score(call.context(), request, &response));
  if (!status.ok()) return status;
  ServedAnswer answer;
  answer.milliseconds = absl::ToDoubleMilliseconds(absl::Now() - start);
  answer.outcome.logprob = -response.mean_nll();
  return answer;
}

absl::StatusOr<v1::Model> DescribeModel(const Client& client, OpenCalls* calls,
                                        const std::string& name) {
  OpenCalls::Call call(calls, client);
  v1::GetModelRequest request;
  request.set_name(name);
  v1::GetModelResponse response;
  const auto stub = v1::ModelService::NewStub(client.channel());
  absl::Status status =
      client.Check(stub->GetModel(call.context(), request, &response));
  if (!status.ok()) return status;
  return response.model();
}

absl::StatusOr<ServedPair> AskBoth(
    const Client& client, OpenCalls* calls, const std::string& dense,
    const std::string& pruned, const std::vector<LabelledText>& texts,
    Metric metric, const std::function<void(int64_t)>& on_progress) {
  Asking asking(client, calls);
  ServedPair pair;
  for (size_t i = 0; i < texts.size(); ++i) {
    // Who comes first finds what the machine did before: in turns.
    const bool pruned_first = i % 2 == 1;
    absl::StatusOr<ServedAnswer> first =
        asking.Ask(pruned_first ? pruned : dense, texts[i], metric);
    if (!first.ok()) return first.status();
    absl::StatusOr<ServedAnswer> second =
        asking.Ask(pruned_first ? dense : pruned, texts[i], metric);
    if (!second.ok()) return second.status();
    ServedAnswer& of_dense = pruned_first ? *second : *first;
    ServedAnswer& of_pruned = pruned_first ? *first : *second;
    of_pruned.outcome.kl = Divergence(of_dense, of_pruned);
    KeepAnswer(std::move(of_dense), &pair.dense);
    KeepAnswer(std::move(of_pruned), &pair.pruned);
    on_progress(static_cast<int64_t>(i + 1));
  }
  return pair;
}

}  // namespace headcount
