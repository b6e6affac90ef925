// Any bytes as JSON. What is accepted has to be what the library accepts, nest
// no deeper than the limit, and be the same tree when written and read again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "format/json.h"
#include "nlohmann/json.hpp"

namespace headcount {
namespace {

int Depth(const nlohmann::json& root) {
  int deepest = 0;
  std::vector<std::pair<const nlohmann::json*, int>> open = {{&root, 0}};
  while (!open.empty()) {
    const auto [value, depth] = open.back();
    open.pop_back();
    if (!value->is_structured()) continue;
    deepest = std::max(deepest, depth + 1);
    for (const nlohmann::json& child : *value) {
      open.emplace_back(&child, depth + 1);
    }
  }
  return deepest;
}

void ParseAndCheck(std::string_view text) {
  const absl::StatusOr<nlohmann::json> tree = ParseJson(text, "input");
  if (!tree.ok()) {
    CHECK(tree.status().code() == absl::StatusCode::kInvalidArgument);
    return;
  }
  CHECK(nlohmann::json::accept(text));
  CHECK(Depth(*tree) <= kMaxJsonDepth);
  const absl::StatusOr<nlohmann::json> again = ParseJson(tree->dump(), "dump");
  CHECK(again.ok()) << again.status();
  CHECK(*tree == *again);
}

}  // namespace
}  // namespace headcount

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  headcount::ParseAndCheck({reinterpret_cast<const char*>(data), size});
  return 0;
}
