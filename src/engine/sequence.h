// One request as the scheduler sees it: its tokens, how many of them have their
// K and V in the pool, and the blocks that hold those.
//
// Continuations that are scored follow the prompt one after the other, in the
// same blocks, so that the prompt is computed once. The last token of each is
// only ever predicted, and so never stands here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/request.h"
#include "kv/block_table.h"
#include "kv/prefix_hash.h"

namespace headcount {

struct Flow;

// Readable by all, written by the Scheduler that owns it. Not thread-safe.
//
// Invariants: computed < tokens.size(), next_logits < tokens.size(); a waiting
// sequence has computed == 0 and no blocks.
struct Sequence {
  // Takes the prompt. `max_context` limits what is generated; the request fits
  // it (see Scheduler::CheckFits).
  Sequence(RequestId id, Request request, int32_t max_context, size_t groups,
           bool shares_prefix);

  int32_t length() const { return static_cast<int32_t>(tokens.size()); }
  int32_t remaining() const { return length() - computed; }
  bool decoding() const { return length() > prompt_tokens && remaining() == 1; }

  // The first continuation from `index` on that has tokens to compute; their
  // number if there is none.
  size_t LongContinuation(size_t index) const;
  // Puts that continuation after the prompt, in place of the one that was
  // there, whose tokens have all been computed.
  void Follow(size_t index);

  // Whether the blocks have room for `num_tokens`.
  bool HasRoomFor(int32_t num_tokens) const;

  // Rows of logits that the next `num_tokens` tokens must give: those from
  // next_logits on, which are always the last.
  int32_t LogitsRows(int32_t num_tokens) const;
  // The most tokens that come next and give at most `max_rows` rows.
  int32_t TokensWithin(int32_t max_rows) const;

  const RequestId id;  // rises with age: the lower, the older
  const int model;
  const absl::Time deadline;
  const int64_t bytes;  // that it holds while it waits, about
  const std::string tenant;
  const int32_t priority;
  const std::string cache_salt;
  const bool shares_prefix;  // may read and fill the prefix cache
  const int32_t prompt_tokens;
  const int32_t max_length;     // prompt and all that may follow at once
  const int32_t max_kv_tokens;  // the last token is never computed
  const std::vector<std::vector<int32_t>> continuations;

  std::vector<int32_t> tokens;  // the prompt, then what follows it
  size_t continuation = 0;      // that follows; their number: none does
  int32_t computed = 0;         // tokens whose K and V are in the blocks
  // First position whose logits have not been used. Behind it nothing needs
  // logits, so that recomputing after a preemption emits nothing twice.
  int32_t next_logits;
  int32_t preemptions = 0;
  bool reserves = false;      // is let in on blocks for max_kv_tokens
  bool admitted = false;      // once, and so charged to its tenant
  int32_t cached_tokens = 0;  // found in the prefix cache when first admitted
  std::vector<BlockTable> tables;  // [group]
  std::vector<BlockHash> hashes;   // of the first blocks of tokens
  int64_t published_blocks = 0;    // of each table, from the first
  Flow* flow = nullptr;            // of its FairQueue

  // Tokens, from the first, that keep their places in the blocks; a scored
  // continuation makes place for the next one.
  int32_t lasting_tokens() const {
    return continuations.empty() ? computed : std::min(computed, prompt_tokens);
  }
  // Tokens whose K and V may come from elsewhere: all but those that logits are
  // still needed of, and of those that last, since a block that others have too
  // must not be written again.
  int32_t reusable_tokens() const {
    const int32_t needed = std::min(next_logits, length() - 1);
    return continuations.empty() ? needed : std::min(needed, prompt_tokens);
  }

 private:
  void AppendContinuation();
};

}  // namespace headcount
