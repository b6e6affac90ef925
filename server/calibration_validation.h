// Examples and gates of calibration calls, checked and tokenised. Errors are
// those of errors.h, with the path of the field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "google/protobuf/repeated_ptr_field.h"
#include "headcount/v1/calibration.pb.h"
#include "server/model_setup.h"

namespace headcount {

using CalibrationExamples =
    google::protobuf::RepeatedPtrField<v1::CalibrationExample>;

// A v1::CalibrationExample as tokens.
struct CheckedExample {
  std::vector<int32_t> prompt;  // at least one
  // What follows it; empty if the labels do, or nothing is expected.
  std::vector<int32_t> target = {};
  bool classifies = false;                     // the labels of the model follow
  std::optional<size_t> label = std::nullopt;  // the one that is expected
};

// Whether a prompt has to have a target.
enum class Targets { kNeeded, kOptional };

// At least one. With its target or its labels, each fits the context.
absl::StatusOr<std::vector<CheckedExample>> CheckedExamples(
    const CalibrationExamples& examples, Targets targets,
    const ServedModel& model);

// One entry for each setting, as Request::head_gates.
absl::StatusOr<std::vector<std::vector<float>>> CheckedSettings(
    const google::protobuf::RepeatedPtrField<v1::HeadGates>& gates,
    const ServedModel& model);

// Memory of log-probabilities of the whole vocabulary at `places`.
int64_t LogprobRowBytes(size_t places, const ServedModel& model);

}  // namespace headcount
