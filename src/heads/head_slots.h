// Where the heads of one layout lie among those of a wider one: what lets a
// mask run over weights that were compacted by another mask, or by none.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "heads/head_layout.h"

namespace headcount {

// Of one layer; slots are those of LayerHeads, and rise.
struct LayerSlots {
  std::vector<int> query;  // [query slot] -> query slot in the wider layer
  std::vector<int> kv;     // [KV slot] -> KV slot in the wider layer
};

// [layer]. Both layouts are of the same unpruned model. InvalidArgument, naming
// layer and head, when `narrow` keeps one that `wide` does not.
absl::StatusOr<std::vector<LayerSlots>> SlotsIn(const HeadLayout& wide,
                                                const HeadLayout& narrow);

}  // namespace headcount
