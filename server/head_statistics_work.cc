#include "server/head_statistics_work.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace headcount {

std::optional<CalibrationPart> HeadStatisticsWork::Begin() {
  // Which texts share a step is up to chance, and with it the order of sums.
  if (begun_ > ended_) return std::nullopt;
  if (begun_ == examples_.size()) return std::nullopt;
  const CheckedExample& example = examples_[begun_];
  CalibrationPart part;
  part.id = static_cast<int64_t>(begun_);
  part.field = absl::StrCat("examples[", begun_, "]");
  part.request.model = model_->index;
  part.request.load_id = model_->load_id;
  part.request.prompt = example.prompt;
  const std::vector<int32_t>& follows =
      example.label.has_value() ? model_->classify->labels[*example.label].ids
                                : example.target;
  // Nothing that is expected follows the last of it.
  const size_t unread = answers_only_ && !follows.empty() ? 1 : 0;
  part.request.prompt.insert(part.request.prompt.end(), follows.begin(),
                             follows.end() - static_cast<int64_t>(unread));
  part.request.statistics = statistics_;
  part.request.statistics_skip = skip_tokens_;
  if (answers_only_) {
    part.request.statistics_skip =
        std::max(skip_tokens_, static_cast<int32_t>(example.prompt.size()) - 1);
  }
  ++begun_;
  return part;
}

absl::Status HeadStatisticsWork::End(int64_t, const Scores&) {
  ++ended_;
  // Otherwise others may be adding to them.
  if (ended_ < examples_.size()) return absl::OkStatus();
  return statistics_->status();
}

std::optional<v1::LayerHeadStatistics> HeadStatisticsWork::TakeResponse() {
  if (ended_ < examples_.size()) return std::nullopt;
  const std::vector<LayerStatistics>& layers = statistics_->layers();
  while (next_layer_ < layers.size() &&
         layers[next_layer_].query_heads.empty()) {
    ++next_layer_;
  }
  if (next_layer_ == layers.size()) return std::nullopt;
  const LayerStatistics& layer = layers[next_layer_];
  v1::LayerHeadStatistics response;
  response.set_layer(static_cast<int32_t>(next_layer_++));
  response.mutable_query_heads()->Add(layer.query_heads.begin(),
                                      layer.query_heads.end());
  response.set_tokens(layer.tokens);
  // Without tokens all sums are 0, and so are the means.
  const double count = layer.tokens > 0 ? static_cast<double>(layer.tokens) : 1;
  for (const double sum : layer.output_norm) {
    response.add_output_norm(sum / count);
  }
  for (const double sum : layer.sum) {
    response.add_mean(static_cast<float>(sum / count));
  }
  response.mutable_gram()->Reserve(static_cast<int>(layer.gram.size()));
  for (const double sum : layer.gram) {
    response.add_gram(static_cast<float>(sum));
  }
  return response;
}

}  // namespace headcount
