#include "model/variant.h"

#include <atomic>

namespace headcount {

absl::StatusOr<std::shared_ptr<const Variant>> Variant::Create(
    const HeadLayout& weights, HeadLayout layout) {
  absl::StatusOr<std::vector<LayerSlots>> slots = SlotsIn(weights, layout);
  if (!slots.ok()) return slots.status();
  static std::atomic<uint64_t> last_id = 0;
  std::shared_ptr<Variant> variant(new Variant(std::move(layout)));
  variant->id_ = ++last_id;
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
