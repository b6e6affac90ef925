// What CollectHeadStatistics computes: all examples through the model, then a
// message for each layer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "headcount/v1/calibration.pb.h"
#include "model/head_statistics.h"
#include "server/calibration_validation.h"
#include "server/calibration_work.h"
#include "server/model_setup.h"

namespace headcount {

class HeadStatisticsWork final
    : public CalibrationWork<v1::LayerHeadStatistics> {
 public:
  // `examples` are those of `model`, checked; `statistics` are empty.
  HeadStatisticsWork(std::shared_ptr<const ServedModel> model,
                     std::vector<CheckedExample> examples, int32_t skip_tokens,
                     bool answers_only,
                     std::shared_ptr<HeadStatistics> statistics)
      : model_(std::move(model)),
        examples_(std::move(examples)),
        skip_tokens_(skip_tokens),
        answers_only_(answers_only),
        statistics_(std::move(statistics)) {}

  std::optional<CalibrationPart> Begin() override;
  absl::Status End(int64_t id, const Scores& scores) override;
  std::optional<v1::LayerHeadStatistics> TakeResponse() override;

 private:
  const std::shared_ptr<const ServedModel> model_;
  const std::vector<CheckedExample> examples_;
  const int32_t skip_tokens_;
  const bool answers_only_;
  // The engine's until all examples have ended.
  const std::shared_ptr<HeadStatistics> statistics_;
  size_t begun_ = 0;
  size_t ended_ = 0;
  size_t next_layer_ = 0;  // to tell
};

}  // namespace headcount
