#include "heads/kv_geometry.h"

#include <cmath>
#include <limits>
#include <numbers>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/checked.h"

namespace headcount {
namespace {

constexpr int64_t kMinSlabBytes = int64_t{2} << 20;
constexpr int64_t kMaxSlabBytes = int64_t{64} << 20;
constexpr int64_t kSlabsPerPool = 256;

// The page of one KV head, from `offset` on.
KvPage PageAt(int64_t offset, int64_t head_dim, KvDtype dtype) {
  const int64_t tensor_bytes = kBlockTokens * KvRowBytes(head_dim, dtype);
  KvPage page{.k_offset = offset,
              .v_offset = offset + tensor_bytes,
              .bytes = 2 * tensor_bytes,
              .dtype = dtype};
  if (IsQuantized(dtype)) {
    const int64_t scale_bytes = kBlockTokens * int64_t{sizeof(uint16_t)};
    page.scale = KvScale::kToken;
    page.k_scales_offset = offset + page.bytes;
    page.v_scales_offset = page.k_scales_offset + scale_bytes;
    page.bytes += 2 * scale_bytes;
  }
  return page;
}

}  // namespace

absl::StatusOr<KvGeometry> KvGeometry::Create(const HeadLayout& layout,
                                              int group) {
  CHECK(group >= 0 && static_cast<size_t>(group) < layout.groups().size())
      << "group " << group;
  KvGeometry geometry;
  geometry.pages_.resize(layout.layers().size());
  for (const KvHeadId& id : layout.groups()[static_cast<size_t>(group)].heads) {
    const auto layer = static_cast<size_t>(id.layer);
    const auto slot = static_cast<size_t>(id.kv_slot);
    const std::vector<KvHead>& kv_heads = layout.layers()[layer].kv_heads;
    const KvDtype dtype = kv_heads[slot].dtype;
    // The slots of heads that belong to other groups keep offset -1.
    geometry.pages_[layer].resize(
        kv_heads.size(), {.k_offset = -1, .v_offset = -1, .dtype = dtype});
    const KvPage page = PageAt(geometry.block_bytes_, layout.head_dim(), dtype);
    geometry.pages_[layer][slot] = page;
    const std::optional<int64_t> block_bytes =
        CheckedAdd(geometry.block_bytes_, page.bytes);
    if (!block_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the KV block of ", layout.kv_heads(), " KV heads with head_dim ",
          layout.head_dim(), " is larger than 2^63 bytes"));
    }
    geometry.block_bytes_ = *block_bytes;
  }
  return geometry;
}

const KvPage& KvGeometry::page(int layer, int kv_slot) const {
  CHECK(layer >= 0 && static_cast<size_t>(layer) < pages_.size())
      << "layer " << layer;
  const std::vector<KvPage>& pages = pages_[static_cast<size_t>(layer)];
  CHECK(kv_slot >= 0 && static_cast<size_t>(kv_slot) < pages.size())
      << "layer " << layer << ", KV slot " << kv_slot;
  const KvPage& page = pages[static_cast<size_t>(kv_slot)];
  CHECK(page.k_offset >= 0) << "layer " << layer << ", KV slot " << kv_slot
                            << " belongs to another group";
  return page;
}

int64_t KvGeometry::BlocksFor(int64_t tokens) {
  CHECK(tokens >= 0) << tokens << " tokens";
  return tokens / kBlockTokens + (tokens % kBlockTokens != 0 ? 1 : 0);
}

int64_t KvGeometry::MostBlocks(const Retention& retention,
                               int64_t step_tokens) {
  CHECK(step_tokens >= 1) << step_tokens << " tokens";
  if (retention.full()) return std::numeric_limits<int64_t>::max();
  // The first token of the step sees window - 1 before itself, and may be the
  // last one of its block.
  const int64_t span = retention.window - 1 + step_tokens;
  return BlocksFor(retention.sink) + BlocksFor(span - 1) + 1;
}

absl::StatusOr<int64_t> KvBytesPerToken(const HeadLayout& layout) {
  int64_t bytes = 0;
  for (size_t group = 0; group < layout.groups().size(); ++group) {
    absl::StatusOr<KvGeometry> geometry =
        KvGeometry::Create(layout, static_cast<int>(group));
    if (!geometry.ok()) return geometry.status();
    bytes += geometry->bytes_per_token();
  }
  return bytes;
}

int64_t SlabBytes(int64_t pool_bytes) {
  const double target = static_cast<double>(pool_bytes) / kSlabsPerPool;
  int64_t slab = kMinSlabBytes;
  // Too small while its double is nearer to the target in ratio.
  while (slab < kMaxSlabBytes &&
         target > std::numbers::sqrt2 * static_cast<double>(slab)) {
    slab *= 2;
  }
  return slab;
}

int64_t BlocksPerSlab(int64_t slab_bytes, int64_t block_bytes) {
  CHECK(block_bytes > 0) << "block of " << block_bytes << " bytes";
  return slab_bytes / block_bytes;
}

int64_t WatermarkBlocks(double watermark, int64_t total) {
  return static_cast<int64_t>(
      std::ceil(watermark * static_cast<double>(total)));
}

}  // namespace headcount
