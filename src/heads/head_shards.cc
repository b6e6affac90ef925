#include "heads/head_shards.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <set>
#include <tuple>

#include "base/check.h"
#include "heads/kv_dtype.h"

namespace headcount {
namespace {

struct Gpu {
  int kv_heads = 0;       // of this layer
  int query_heads = 0;    // of this layer
  int64_t row_bytes = 0;  // of all layers: what a token's keys take

  auto Load() const { return std::tie(kv_heads, query_heads, row_bytes); }
};

// Large groups first: small ones even out what those leave.
std::vector<KvHead> ByFallingSize(std::vector<KvHead> heads) {
  std::stable_sort(heads.begin(), heads.end(),
                   [](const KvHead& a, const KvHead& b) {
                     return a.num_queries > b.num_queries;
                   });
  return heads;
}

}  // namespace

std::vector<HeadMask> DealHeads(const HeadLayout& layout, int gpus) {
  CHECK(gpus >= 1) << gpus;
  std::vector<Gpu> loads(static_cast<size_t>(gpus));
  std::vector<HeadMask> masks(loads.size());
  for (size_t l = 0; l < layout.layers().size(); ++l) {
    const LayerHeads& layer = layout.layers()[l];
    for (size_t i = 0; i < loads.size(); ++i) {
      loads[i].kv_heads = 0;
      loads[i].query_heads = 0;
      std::set<int>& without = masks[i].pruned[static_cast<int>(l)];
      for (int q = 0; q < layer.dense.query_heads; ++q) without.insert(q);
    }
    for (const KvHead& head : ByFallingSize(layer.kv_heads)) {
      const auto gpu = std::min_element(
          loads.begin(), loads.end(),
          [](const Gpu& a, const Gpu& b) { return a.Load() < b.Load(); });
      gpu->kv_heads += 1;
      gpu->query_heads += head.num_queries;
      gpu->row_bytes += KvRowBytes(layout.head_dim(), head.dtype);
      std::set<int>& without = masks[static_cast<size_t>(gpu - loads.begin())]
                                   .pruned[static_cast<int>(l)];
      const auto first = layer.query_heads.begin() + head.first_query;
      for (auto q = first; q != first + head.num_queries; ++q) {
        without.erase(*q);
      }
    }
  }
  for (HeadMask& mask : masks) {
    std::erase_if(mask.pruned,
                  [](const auto& entry) { return entry.second.empty(); });
  }
  return masks;
}

}  // namespace headcount
