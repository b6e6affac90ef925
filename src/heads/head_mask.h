// Which query heads an operator takes out of a model.
#pragma once

#include <map>
#include <set>
#include <string_view>

#include "absl/status/status.h"

namespace headcount {

// Pruned query heads by layer; indices are always those of the unpruned model.
// A KV head goes when the last query head that it serves goes.
struct HeadMask {
  std::map<int, std::set<int>> pruned;

  bool empty() const { return pruned.empty(); }
};

// Adds "5" or the inclusive range "0-2" to `heads`. InvalidArgument for
// anything else, for a reversed range and for heads over 65,535.
absl::Status ParseHeadRange(std::string_view text, std::set<int>* heads);

}  // namespace headcount
