#include "cli/rpc_head_moments.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "cli/calibration_example.h"
#include "headcount/v1/calibration.grpc.pb.h"

namespace headcount {
namespace {

// Attention sinks: what heads put out at the first tokens is like nothing else.
constexpr int kSinkTokens = 4;

// Of a call: far from its deadline and from the 4 MiB of a message.
constexpr size_t kMostTexts = 16;
constexpr size_t kMostBytes = size_t{1} << 20;

// Without its label: what is put out there answers nothing.
v1::CalibrationExample Unlabelled(LabelledText text, Metric metric) {
  text.label.clear();
  return ExampleOf(text, metric);
}

// InternalError for what is no answer to the request.
absl::StatusOr<LayerMoments> Read(const v1::LayerHeadStatistics& layer) {
  LayerMoments read{
      .layer = layer.layer(),
      .query_heads = {layer.query_heads().begin(), layer.query_heads().end()},
      .moments = {.tokens = layer.tokens()}};
  const auto width = static_cast<size_t>(layer.mean_size());
  if (static_cast<size_t>(layer.gram_size()) != width * width ||
      layer.tokens() < 0) {
    return absl::InternalError(absl::StrCat("the server's statistics of layer ",
                                            layer.layer(),
                                            " are not of one size"));
  }
  read.moments.mean.assign(layer.mean().begin(), layer.mean().end());
  read.moments.second.reserve(width * width);
  const auto count = static_cast<double>(layer.tokens());
  for (const float sum : layer.gram()) {
    read.moments.second.push_back(count > 0 ? double{sum} / count : 0);
  }
  return read;
}

absl::Status AddTo(std::vector<LayerMoments>* layers, size_t place,
                   LayerMoments read) {
  if (place == layers->size()) {
    layers->push_back(std::move(read));
    return absl::OkStatus();
  }
  LayerMoments& layer = (*layers)[place];
  if (layer.layer != read.layer || layer.query_heads != read.query_heads ||
      layer.moments.mean.size() != read.moments.mean.size()) {
    return absl::InternalError(
        "the model's heads changed while statistics were taken");
  }
  Merge(read.moments, &layer.moments);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<LayerMoments>> CollectMoments(
    const Client& client, OpenCalls* calls, const MomentsQuestion& question,
    const std::function<void(int64_t)>& on_progress) {
  const std::vector<LabelledText>& texts = *question.texts;
  const auto stub = v1::CalibrationService::NewStub(client.channel());
  std::vector<LayerMoments> layers;
  for (size_t next = 0; next < texts.size();) {
    v1::CollectHeadStatisticsRequest request;
    request.set_model(question.model);
    request.set_answers_only(question.answers_only);
    request.set_gram(true);
    request.set_skip_tokens(kSinkTokens);
    for (size_t bytes = 0; next < texts.size(); ++next) {
      bytes += texts[next].text.size() + texts[next].target.size();
      const auto count = static_cast<size_t>(request.examples_size());
      if (count == kMostTexts || (count > 0 && bytes > kMostBytes)) break;
      *request.add_examples() = Unlabelled(texts[next], question.metric);
    }
    OpenCalls::Call call(calls, client);
    const auto reader = stub->CollectHeadStatistics(call.context(), request);
    v1::LayerHeadStatistics response;
    for (size_t place = 0; reader->Read(&response); ++place) {
      absl::StatusOr<LayerMoments> read = Read(response);
      if (!read.ok()) return read.status();
      absl::Status status = AddTo(&layers, place, *std::move(read));
      if (!status.ok()) return status;
    }
    absl::Status status = client.Check(reader->Finish());
    if (!status.ok()) return status;
    on_progress(static_cast<int64_t>(next));
  }
  return layers;
}

}  // namespace headcount
