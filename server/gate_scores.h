// What ScoreGates computes: an example's dense run first, then all settings of
// the gates against it. A setting is taken up at the first layer where it is
// not as the dense run, or as the first setting if that is later: a search asks
// about what is already gone, and then about that and a little more.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "headcount/v1/calibration.pb.h"
#include "model/layer_inputs.h"
#include "server/calibration_validation.h"
#include "server/calibration_work.h"
#include "server/model_setup.h"

namespace headcount {

class GateScores final : public CalibrationWork<v1::ScoreGatesResponse> {
 public:
  // `examples` and `settings` are those of `model`, checked.
  GateScores(std::shared_ptr<const ServedModel> model,
             std::vector<CheckedExample> examples,
             std::vector<std::vector<float>> settings);

  std::optional<CalibrationPart> Begin() override;
  absl::Status End(int64_t id, const Scores& scores) override;
  std::optional<v1::ScoreGatesResponse> TakeResponse() override;

 private:
  // An example that has begun and whose message has not been taken.
  struct Open {
    bool dense_ended = false;
    bool first_ended = false;  // the first setting
    size_t begun = 0;          // settings
    size_t left = 0;           // runs that have not ended
    // What the settings are compared with: the log-probabilities of the labels,
    // which are normalised; or rows over the vocabulary, only while there are
    // runs left.
    std::vector<double> labels;
    std::shared_ptr<LogprobRows> rows;
    // What later runs are taken up at, of the dense run and of the first
    // setting; null where that cannot be, else there while runs are left.
    std::shared_ptr<LayerInputs> dense_inputs;
    std::shared_ptr<LayerInputs> first_inputs;
    int64_t input_bytes = 0;
    v1::ScoreGatesResponse response;
  };

  // Of the dense run, or of a setting.
  CalibrationPart MakePart(size_t example, std::optional<size_t> setting) const;
  bool MayOpen() const;
  // Whether it is as the first setting for longer than as the dense run.
  bool FollowsFirst(size_t setting) const {
    return setting > 0 && unlike_first_[setting] > unlike_dense_[setting];
  }
  Request RequestOf(const CheckedExample& example) const;
  // Of the inputs of one of its runs; 0 where they are not kept.
  int64_t InputBytes(const CheckedExample& example) const;
  // Of all of its runs that are kept.
  int64_t AllInputBytes(const CheckedExample& example) const;
  void OpenNext();
  v1::GateScore Score(const CheckedExample& example, const Scores& scores,
                      Open* open) const;

  const std::shared_ptr<const ServedModel> model_;
  const std::vector<CheckedExample> examples_;
  const std::vector<std::vector<float>> settings_;
  // [setting], the first layer that has a gate other than 1, or than the first
  // setting has.
  std::vector<int32_t> unlike_dense_;
  std::vector<int32_t> unlike_first_;
  bool keeps_first_ = false;  // some setting follows it
  std::deque<Open> open_;     // in order, from first_open_ on
  size_t first_open_ = 0;     // index of an example
  int64_t rows_bytes_ = 0;    // of all that are open
  int64_t input_bytes_ = 0;
};

}  // namespace headcount
