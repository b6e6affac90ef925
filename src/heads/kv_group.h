// The KV heads of a model that share one retention rule. Each sequence has one
// BlockTable per group.
#pragma once

#include <string_view>
#include <vector>

namespace headcount {

// One kept KV head of a model.
struct KvHeadId {
  int layer = 0;
  int kv_slot = 0;  // index in LayerHeads::kv_heads
  bool operator==(const KvHeadId&) const = default;
};

struct KvGroup {
  // `full` keeps every token. Sliding windows and streaming heads add rules
  // here.
  enum class Retention { kFull };

  Retention retention = Retention::kFull;
  std::vector<KvHeadId> heads;  // by layer, then slot; never empty
};

constexpr std::string_view RetentionName(KvGroup::Retention) { return "full"; }

}  // namespace headcount
