// Cosines and sines of a step's positions.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "backend/backend.h"
#include "backend/cpu/thread_pool.h"

namespace headcount {

class RopeTable {
 public:
  // The angle is float(position) * inverse_frequency rounded to float, as in
  // Hugging Face's LlamaRotaryEmbedding: at large positions that rounding is
  // part of what the model was trained with.
  void Compute(const Rope& rope, absl::Span<const int32_t> positions,
               ThreadPool* pool);

  // [head_dim / 2]
  const float* cos(int64_t row) const { return &cos_[Offset(row)]; }
  const float* sin(int64_t row) const { return &sin_[Offset(row)]; }

 private:
  size_t Offset(int64_t row) const { return static_cast<size_t>(row) * half_; }

  size_t half_ = 0;
  std::vector<float> cos_;  // [rows, half_]
  std::vector<float> sin_;
};

}  // namespace headcount
