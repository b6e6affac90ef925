#include "backend/cpu/rope_table.h"

#include <algorithm>
#include <cmath>

namespace headcount {
namespace {

// Rows of a task: enough cosines to be worth waking a thread for.
constexpr size_t kTaskRows = 32;

}  // namespace

void RopeTable::Compute(const Rope& rope, absl::Span<const int32_t> positions,
                        ThreadPool* pool) {
  half_ = rope.inverse_frequency.size();
  cos_.resize(positions.size() * half_);
  sin_.resize(positions.size() * half_);
  const size_t tasks = (positions.size() + kTaskRows - 1) / kTaskRows;
  pool->Run(static_cast<int64_t>(tasks), [&](int64_t task, int /*worker*/) {
    const size_t begin = static_cast<size_t>(task) * kTaskRows;
    const size_t end = std::min(begin + kTaskRows, positions.size());
    for (size_t row = begin; row < end; ++row) {
      const float position = static_cast<float>(positions[row]);
      for (size_t i = 0; i < half_; ++i) {
        const float angle = position * rope.inverse_frequency[i];
        cos_[row * half_ + i] = std::cos(angle) * rope.scale;
        sin_[row * half_ + i] = std::sin(angle) * rope.scale;
      }
    }
  });
}

}  // namespace headcount
