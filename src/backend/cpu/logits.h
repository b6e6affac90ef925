// Passes over one row of logits.
#pragma once

#include "absl/types/span.h"

namespace headcount {

// The highest of `logits`. False when one is NaN or +inf, or none is finite.
bool FindHighestLogit(absl::Span<const float> logits, float* highest);

// sum(exp(logits - shift)). No logit exceeds `shift`.
double SumExp(absl::Span<const float> logits, float shift);

}  // namespace headcount
