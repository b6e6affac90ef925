// Output projections refit for the heads that a mask keeps: the `repair` of a
// mask file (docs/masks.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "format/checkpoint.h"
#include "heads/head_layout.h"

namespace headcount {

// Movable, thread-safe to read.
class OutputRepair {
 public:
  // `path` is a .safetensors file with `layers.N.o_proj.weight` [hidden, kept
  // query heads of `layout` x head_dim] and `layers.N.o_proj.bias` [hidden] of
  // the layers that it repairs, F32 or F16. InvalidArgument, naming file and
  // tensor, for anything else in it, and as Checkpoint::Open.
  static absl::StatusOr<OutputRepair> Open(const std::string& path,
                                           const HeadLayout& layout,
                                           int32_t hidden);

  // Valid as long as this is; null where the model's own is to be used.
  const TensorView* weight(size_t layer) const { return Find(layer, kWeight); }
  const TensorView* bias(size_t layer) const { return Find(layer, kBias); }

 private:
  static constexpr char kWeight[] = "weight";
  static constexpr char kBias[] = "bias";

  explicit OutputRepair(Checkpoint tensors) : tensors_(std::move(tensors)) {}
  const TensorView* Find(size_t layer, const char* what) const;
  absl::Status Check(const HeadLayout& layout, int32_t hidden) const;

  Checkpoint tensors_;
};

}  // namespace headcount
