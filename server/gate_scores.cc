#include "server/gate_scores.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "model/layer_inputs.h"
#include "server/classification.h"
#include "server/limits.h"

namespace headcount {
namespace {

template <typename Number>
double Sum(const std::vector<Number>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), 0.0);
}

// KL(p || q) of two distributions given as log-probabilities.
double Divergence(const std::vector<double>& log_p,
                  const std::vector<double>& log_q) {
  double sum = 0;
  for (size_t i = 0; i < log_p.size(); ++i) {
    const double p = std::exp(log_p[i]);
    if (p > 0) sum += p * (log_p[i] - log_q[i]);
  }
  return sum;
}

// Of the labels of a model, among each other.
std::vector<double> LabelLogprobs(const Scores& scores) {
  std::vector<double> logprobs;
  for (const std::vector<float>& tokens : scores.logprobs) {
    logprobs.push_back(Sum(tokens));
  }
  return NormalisedLogprobs(logprobs);
}

// The first layer where gates differ, or the number of layers. a, b: [layer]
// [query head] in one list.
int32_t FirstUnlikeLayer(const std::vector<float>& a,
                         const std::vector<float>& b,
                         const std::vector<LayerShape>& layers) {
  auto at = std::mismatch(a.begin(), a.end(), b.begin()).first - a.begin();
  int32_t layer = 0;
  for (const LayerShape& shape : layers) {
    if (at < shape.query_heads) return layer;
    at -= shape.query_heads;
    ++layer;
  }
  return layer;
}

}  // namespace

GateScores::GateScores(std::shared_ptr<const ServedModel> model,
                       std::vector<CheckedExample> examples,
                       std::vector<std::vector<float>> settings)
    : model_(std::move(model)),
      examples_(std::move(examples)),
      settings_(std::move(settings)) {
  for (const std::vector<float>& gates : settings_) {
    unlike_dense_.push_back(FirstUnlikeLayer(
        gates, std::vector<float>(gates.size(), 1.0f), model_->shape.heads));
    unlike_first_.push_back(
        FirstUnlikeLayer(gates, settings_.front(), model_->shape.heads));
    keeps_first_ |= FollowsFirst(unlike_first_.size() - 1);
  }
}

std::optional<CalibrationPart> GateScores::Begin() {
  for (size_t i = 0; i < open_.size(); ++i) {
    Open& open = open_[i];
    if (!open.dense_ended || open.begun == settings_.size()) continue;
    const bool waits = open.first_inputs != nullptr && !open.first_ended &&
                       FollowsFirst(open.begun);
    if (!waits) {
      return MakePart(first_open_ + i, open.begun++);
    }
  }
  if (!MayOpen()) return std::nullopt;
  OpenNext();
  return MakePart(first_open_ + open_.size() - 1, std::nullopt);
}

bool GateScores::MayOpen() const {
  const size_t next = first_open_ + open_.size();
  if (next == examples_.size() || open_.size() == kMaxCalibrationRequests) {
    return false;
  }
  if (open_.empty()) return true;
  const int64_t rows = LogprobRowBytes(examples_[next].target.size(), *model_);
  return rows_bytes_ + rows <= kMaxCalibrationRowBytes &&
         input_bytes_ + AllInputBytes(examples_[next]) <=
             kMaxCalibrationInputBytes;
}

Request GateScores::RequestOf(const CheckedExample& example) const {
  Request request;
  request.model = model_->index;
  request.load_id = model_->load_id;
  request.prompt = example.prompt;
  if (!example.classifies) {
    request.continuations.push_back(example.target);
    return request;
  }
  for (const ClassifySetup::Label& label : model_->classify->labels) {
    request.continuations.push_back(label.ids);
  }
  return request;
}

int64_t GateScores::InputBytes(const CheckedExample& example) const {
  const std::optional<int64_t> tokens = ComputedTokens(RequestOf(example));
  if (!tokens || settings_.empty()) return 0;
  const int64_t bytes =
      LayerInputs::Bytes(model_->shape.layers, *tokens, model_->shape.hidden);
  return bytes <= kMaxCalibrationInputBytes ? bytes : 0;
}

int64_t GateScores::AllInputBytes(const CheckedExample& example) const {
  const int64_t bytes = InputBytes(example);
  const bool both = keeps_first_ && 2 * bytes <= kMaxCalibrationInputBytes;
  return both ? 2 * bytes : bytes;
}

void GateScores::OpenNext() {
  const size_t next = first_open_ + open_.size();
  const size_t places = examples_[next].target.size();
  Open& open = open_.emplace_back();
  open.left = 1 + settings_.size();
  if (!examples_[next].classifies) {
    open.rows = std::make_shared<LogprobRows>(
        places, static_cast<size_t>(model_->vocab));
    rows_bytes_ += LogprobRowBytes(places, *model_);
  }
  open.input_bytes = AllInputBytes(examples_[next]);
  input_bytes_ += open.input_bytes;
  const auto make_inputs = [&] {
    return std::make_shared<LayerInputs>(
        static_cast<size_t>(model_->shape.layers),
        static_cast<size_t>(*ComputedTokens(RequestOf(examples_[next]))),
        static_cast<size_t>(model_->shape.hidden));
  };
  if (open.input_bytes > 0) open.dense_inputs = make_inputs();
  if (open.input_bytes > InputBytes(examples_[next])) {
    open.first_inputs = make_inputs();
  }
  open.response.set_example(static_cast<int32_t>(next));
  open.response.set_places(
      examples_[next].classifies ? 1 : static_cast<int32_t>(places));
  for (size_t i = 0; i < settings_.size(); ++i) open.response.add_scores();
}

CalibrationPart GateScores::MakePart(size_t example,
                                     std::optional<size_t> setting) const {
  const CheckedExample& from = examples_[example];
  const Open& open = open_[example - first_open_];
  const size_t run = setting.has_value() ? *setting + 1 : 0;
  CalibrationPart part;
  part.id = static_cast<int64_t>(example * (settings_.size() + 1) + run);
  part.field = absl::StrCat("examples[", example, "]");
  part.request = RequestOf(from);
  if (!setting.has_value()) {
    part.request.kept_rows = open.rows;
    part.request.kept_inputs = open.dense_inputs;
    return part;
  }
  part.request.head_gates = settings_[*setting];
  part.request.reference_rows = open.rows;
  if (*setting == 0) part.request.kept_inputs = open.first_inputs;
  if (open.first_inputs != nullptr && FollowsFirst(*setting)) {
    part.request.inputs = open.first_inputs;
    part.request.first_layer = unlike_first_[*setting];
  } else if (open.dense_inputs != nullptr && unlike_dense_[*setting] > 0) {
    part.request.inputs = open.dense_inputs;
    part.request.first_layer = unlike_dense_[*setting];
  }
  return part;
}

absl::Status GateScores::End(int64_t id, const Scores& scores) {
  const auto runs = static_cast<int64_t>(settings_.size()) + 1;
  const auto example = static_cast<size_t>(id / runs);
  const auto run = static_cast<int>(id % runs);
  CHECK(example >= first_open_ && example - first_open_ < open_.size()) << id;
  Open& open = open_[example - first_open_];
  v1::GateScore score = Score(examples_[example], scores, &open);
  if (run == 0) {
    open.dense_ended = true;
    *open.response.mutable_dense() = std::move(score);
  } else {
    open.first_ended |= run == 1;
    *open.response.mutable_scores(run - 1) = std::move(score);
  }
  if (--open.left > 0) return absl::OkStatus();
  if (open.rows != nullptr) {
    rows_bytes_ -= LogprobRowBytes(open.rows->places(), *model_);
  }
  input_bytes_ -= open.input_bytes;
  open.rows = nullptr;
  open.dense_inputs = nullptr;
  open.first_inputs = nullptr;
  return absl::OkStatus();
}

// The first score of an example is what the others are compared with.
v1::GateScore GateScores::Score(const CheckedExample& example,
                                const Scores& scores, Open* open) const {
  v1::GateScore score;
  if (!example.classifies) {
    score.set_expected_logprob(Sum(scores.logprobs.front()));
    if (!scores.divergences.empty()) {
      score.set_kl(Sum(scores.divergences) /
                   static_cast<double>(scores.divergences.size()));
    }
    return score;
  }
  std::vector<double> labels = LabelLogprobs(scores);
  const auto likeliest = static_cast<size_t>(
      std::max_element(labels.begin(), labels.end()) - labels.begin());
  score.set_label(model_->classify->labels[likeliest].text);
  if (example.label.has_value()) {
    score.set_expected_logprob(labels[*example.label]);
  }
  if (open->dense_ended) {
    score.set_kl(Divergence(open->labels, labels));
  } else {
    open->labels = std::move(labels);
  }
  return score;
}

std::optional<v1::ScoreGatesResponse> GateScores::TakeResponse() {
  if (open_.empty() || open_.front().left > 0) return std::nullopt;
  v1::ScoreGatesResponse response = std::move(open_.front().response);
  open_.pop_front();
  ++first_open_;
  return response;
}

}  // namespace headcount
