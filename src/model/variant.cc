#include "model/variant.h"

namespace headcount {

absl::StatusOr<std::shared_ptr<const Variant>> Variant::Create(
    const HeadLayout& weights, HeadLayout layout) {
  absl::StatusOr<std::vector<LayerSlots>> slots = SlotsIn(weights, layout);
  if (!slots.ok()) return slots.status();
  std::shared_ptr<Variant> variant(new Variant(std::move(layout)));
  variant->slots_ = *std::move(slots);
  for (size_t g = 0; g < variant->layout_.groups().size(); ++g) {
    absl::StatusOr<KvGeometry> geometry =
        KvGeometry::Create(variant->layout_, static_cast<int>(g));
    if (!geometry.ok()) return geometry.status();
    variant->kv_bytes_per_token_ += geometry->bytes_per_token();
    variant->geometries_.push_back(*std::move(geometry));
  }
  return variant;
}

}  // namespace headcount
