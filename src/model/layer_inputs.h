// The residual stream of a text at the input of every layer: what a run of the
// same text need not compute again if it differs in later layers only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace headcount {

// On the host. Written by one run, then read by any number, on one thread.
class LayerInputs {
 public:
  // Of a model of `layers`; the last input is that of the final norm.
  LayerInputs(size_t layers, size_t tokens, size_t hidden)
      : tokens_(tokens),
        hidden_(hidden),
        values_((layers + 1) * tokens * hidden) {}

  // [count, hidden] of the tokens from `first` on. layer: 0 to that of the
  // constructor.
  absl::Span<float> Rows(size_t layer, size_t first, size_t count) {
    return absl::MakeSpan(values_).subspan(Begin(layer, first),
                                           count * hidden_);
  }
  absl::Span<const float> Rows(size_t layer, size_t first, size_t count) const {
    return absl::MakeConstSpan(values_).subspan(Begin(layer, first),
                                                count * hidden_);
  }

  size_t tokens() const { return tokens_; }

  static int64_t Bytes(int64_t layers, int64_t tokens, int64_t hidden) {
    return (layers + 1) * tokens * hidden * static_cast<int64_t>(sizeof(float));
  }

 private:
  size_t Begin(size_t layer, size_t token) const {
    return (layer * tokens_ + token) * hidden_;
  }

  const size_t tokens_;
  const size_t hidden_;
  std::vector<float> values_;
};

}  // namespace headcount
