// The KV heads of a model that share one retention rule. Each sequence has one
// BlockTable per group.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace headcount {

// Which tokens the queries of a KV head attend to, and so how long a sequence
// keeps them: `full`, all of them; or a sliding window (Beltagy et al. 2020,
// arXiv:2004.05150), of which the query itself is one; or such a window and the
// sink, the very first tokens (Xiao et al. 2023, arXiv:2309.17453).
struct Retention {
  int32_t window = 0;  // tokens; 0: full
  int32_t sink = 0;    // tokens, a multiple of kBlockTokens; 0 if full

  bool full() const { return window == 0; }
  // The first token of the window of the query at `position`. No later query
  // attends to one before it, but for the sink.
  int64_t FirstSeen(int64_t position) const {
    return full() ? 0 : std::max<int64_t>(0, position + 1 - window);
  }
  // What holds for tokens from `begin` on, of which none is past the sink while
  // another is in it: of the sink, each query sees all.
  Retention From(int64_t begin) const {
    return begin < sink ? Retention{} : *this;
  }
  bool operator==(const Retention&) const = default;
};

// One kept KV head of a model.
struct KvHeadId {
  int layer = 0;
  int kv_slot = 0;  // index in LayerHeads::kv_heads
  bool operator==(const KvHeadId&) const = default;
};

struct KvGroup {
  Retention retention;
  std::vector<KvHeadId> heads;  // by layer, then slot; never empty
};

}  // namespace headcount
