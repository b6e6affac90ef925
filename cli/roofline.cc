#include "cli/roofline.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace headcount {
namespace {

double StepFlopsOf(const v1::CapacityPlan& plan) {
  return static_cast<double>(plan.projection_flops() + plan.attention_flops() +
                             plan.mlp_flops() + plan.output_flops());
}

// Where the lines W / R + B k / R and B f / C cross, for weights W, k bytes and
// f operations a sequence, and speeds R and C.
int64_t ComputeBoundFrom(const v1::CapacityPlan& plan, const Device& device) {
  const double gain =
      StepFlopsOf(plan) / device.flops -
      static_cast<double>(plan.attended_bytes()) / device.bytes_per_second;
  if (gain <= 0) return 0;
  const double crossing =
      static_cast<double>(plan.weight_bytes()) / device.bytes_per_second / gain;
  return crossing < 1e15 ? static_cast<int64_t>(std::ceil(crossing)) : 0;
}

void SayWhatBinds(const v1::CapacityPlan& plan, Roofline* roof) {
  if (roof->sequences == 0) {
    roof->binds = "memory";
    roof->why = "not one sequence of this length fits";
  } else if (roof->read_seconds == 0 || roof->compute_seconds == 0) {
    return;
  } else if (roof->compute_seconds >= roof->read_seconds) {
    roof->binds = "compute";
    roof->why = "a step computes longer than it reads";
  } else if (roof->weight_part < 0.5) {
    roof->binds = "bandwidth";
    roof->why = absl::StrFormat(
        "a step reads longer than it computes, and %.0f %% of that are keys "
        "and values, which no two sequences share",
        100 * (1 - roof->weight_part));
  } else if (IsEncoder(plan)) {
    roof->binds = "bandwidth";
    roof->why =
        "one sequence is computed faster than the weights are read, which "
        "others would share";
  } else if (plan.sequences_admitted() >= plan.sequences_scheduled()) {
    roof->binds = "scheduler";
    roof->why = absl::StrFormat(
        "memory for more sequences is there, which would share each read of "
        "the weights, but no more than %d run at once",
        plan.sequences_scheduled());
  } else {
    roof->binds = "memory";
    roof->why = absl::StrFormat(
        "%.0f %% of what a step reads are weights, and more sequences would "
        "share that",
        100 * roof->weight_part);
  }
}

}  // namespace

int64_t SequencesAtOnce(const v1::CapacityPlan& plan) {
  return std::min(plan.sequences_admitted(), plan.sequences_scheduled());
}

bool IsEncoder(const v1::CapacityPlan& plan) {
  return plan.output_flops() == 0;
}

Roofline RooflineOf(const v1::CapacityPlan& plan, const Device& device) {
  Roofline roof;
  roof.sequences = IsEncoder(plan) ? 1 : SequencesAtOnce(plan);
  const auto sequences = static_cast<double>(roof.sequences);
  const auto weights = static_cast<double>(plan.weight_bytes());
  roof.step_bytes =
      weights + sequences * static_cast<double>(plan.attended_bytes());
  roof.weight_part = roof.step_bytes > 0 ? weights / roof.step_bytes : 0;
  roof.step_flops =
      IsEncoder(plan) ? plan.prefill_flops() : sequences * StepFlopsOf(plan);
  if (roof.sequences > 0 && device.bytes_per_second > 0) {
    roof.read_seconds = roof.step_bytes / device.bytes_per_second;
  }
  if (roof.sequences > 0 && device.flops > 0) {
    roof.compute_seconds = roof.step_flops / device.flops;
    roof.prefill_seconds = plan.prefill_flops() / device.flops;
  }
  if (roof.read_seconds > 0 && roof.compute_seconds > 0) {
    roof.tokens_per_second =
        sequences *
        (IsEncoder(plan) ? static_cast<double>(plan.context_tokens()) : 1) /
        std::max(roof.read_seconds, roof.compute_seconds);
    roof.prefill_seconds =
        std::max(roof.prefill_seconds, weights / device.bytes_per_second);
    if (!IsEncoder(plan)) {
      roof.compute_bound_from = ComputeBoundFrom(plan, device);
    }
  }
  SayWhatBinds(plan, &roof);
  return roof;
}

}  // namespace headcount
