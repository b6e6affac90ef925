// Where the key and value of a token lie, in bytes. The pool, the kernels and
// the planner all ask here, so that they cannot disagree.
//
// A block holds kBlockTokens tokens of every KV head of one KvGroup:
//
//   block   := head page, head page, ...        in the order of KvGroup::heads
//   page    := K, V, K scales, V scales
//   K, V    := kBlockTokens rows of KvRowBytes each
//   scales  := kBlockTokens float16 each, where scales are per token
//
// The order of the elements inside K and V is the backend's own (the CPU keeps
// K as [head_dim, kBlockTokens] and V as [kBlockTokens, head_dim]; for CUDA see
// backend/cuda/kv_page.h). Codes of quantised elements: heads/kv_codes.h. K is
// stored after rotary embedding. Pruned heads have no page.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "heads/head_layout.h"

namespace headcount {

inline constexpr int kBlockTokens = 16;

// The pages of one KV head inside a block of its group.
// Offsets are bytes from the start of the block, multiples of 32.
struct KvPage {
  int64_t k_offset = 0;
  int64_t v_offset = 0;
  int64_t k_scales_offset = -1;  // -1: no scales in the page
  int64_t v_scales_offset = -1;
  int64_t bytes = 0;  // of the page, which begins at k_offset
  KvDtype dtype = KvDtype::kF16;
  KvScale scale = KvScale::kNone;
};

// Immutable, thread-safe to read.
class KvGeometry {
 public:
  // The geometry of layout.groups()[group]. InvalidArgument when a size
  // overflows.
  static absl::StatusOr<KvGeometry> Create(const HeadLayout& layout, int group);

  int64_t block_bytes() const { return block_bytes_; }
  int64_t bytes_per_token() const { return block_bytes_ / kBlockTokens; }

  // CHECKs that the KV head exists and belongs to this group.
  const KvPage& page(int layer, int kv_slot) const;

  // Blocks that hold `tokens` tokens of one sequence.
  static int64_t BlocksFor(int64_t tokens);
  // The most blocks of a group that one sequence ever holds at once, when a
  // step computes up to `step_tokens` of its tokens: those that the step writes
  // and that its first token sees. INT64_MAX where nothing is given back.
  static int64_t MostBlocks(const Retention& retention, int64_t step_tokens);

 private:
  KvGeometry() = default;

  std::vector<std::vector<KvPage>> pages_;  // [layer][kv slot]
  int64_t block_bytes_ = 0;
};

// KV bytes of one token of one sequence, over all groups of `layout`.
absl::StatusOr<int64_t> KvBytesPerToken(const HeadLayout& layout);

// The slab size of a pool of `pool_bytes`: the power of two nearest to 1/256 of
// it, between 2 and 64 MiB. What is left of the pool after whole slabs is
// reserved, and so is what is left of a slab after whole blocks.
int64_t SlabBytes(int64_t pool_bytes);

// Whole blocks in a slab. block_bytes > 0.
int64_t BlocksPerSlab(int64_t slab_bytes, int64_t block_bytes);

// Of `total` blocks that a group may come to, those that admission leaves free:
// the part `watermark` of them, rounded up.
int64_t WatermarkBlocks(double watermark, int64_t total);

}  // namespace headcount
