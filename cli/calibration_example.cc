#include "cli/calibration_example.h"

namespace headcount {

v1::CalibrationExample ExampleOf(const LabelledText& text, Metric metric) {
  v1::CalibrationExample example;
  if (metric != Metric::kLogprob) {
    example.set_classify_text(text.text);
    if (!text.label.empty()) example.set_label(text.label);
    return example;
  }
  if (text.prompt_tokens.empty()) {
    example.set_prompt_text(text.text);
  } else {
    example.mutable_prompt_tokens()->mutable_ids()->Add(
        text.prompt_tokens.begin(), text.prompt_tokens.end());
  }
  example.set_target_text(text.target);
  return example;
}

}  // namespace headcount
