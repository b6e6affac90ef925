// A text of the data as the CalibrationService takes it.
#pragma once

#include "cli/labelled_texts.h"
#include "headcount/v1/calibration.pb.h"
#include "prune/comparison.h"

namespace headcount {

// With kLogprob a prompt and its target, else a text to classify, with its
// label if there is one.
v1::CalibrationExample ExampleOf(const LabelledText& text, Metric metric);

}  // namespace headcount
