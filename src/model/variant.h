// The heads of a loaded model that a sequence runs: all that its weights hold,
// or fewer. A variant is a head mask with pages of its own over weights that it
// shares; sequences of any variants of a model run in one step (Batch).
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "heads/head_layout.h"
#include "heads/head_slots.h"
#include "heads/kv_geometry.h"

namespace headcount {

// Immutable, thread-safe to read.
class Variant {
 public:
  // `weights` is what the weights hold. InvalidArgument, naming layer and head,
  // when `layout` keeps one that they do not, and when a size overflows.
  static absl::StatusOr<std::shared_ptr<const Variant>> Create(
      const HeadLayout& weights, HeadLayout layout);

  // Of this variant alone, in the life of the process.
  uint64_t id() const { return id_; }
  const HeadLayout& layout() const { return layout_; }
  const std::vector<KvGeometry>& geometries() const { return geometries_; }
  // [layer], in the layout of the weights.
  const std::vector<LayerSlots>& slots() const { return slots_; }
  int64_t kv_bytes_per_token() const { return kv_bytes_per_token_; }

 private:
  explicit Variant(HeadLayout layout) : layout_(std::move(layout)) {}

  uint64_t id_ = 0;
  HeadLayout layout_;
  std::vector<KvGeometry> geometries_;  // [group]
  std::vector<LayerSlots> slots_;
  int64_t kv_bytes_per_token_ = 0;
};

}  // namespace headcount
