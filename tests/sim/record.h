// Requests and models as the simulator knows them, from what it asked and saw.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/scheduler.h"

namespace headcount::sim {

// What a client asked for and no scheduler is told.
struct Wish {
  int32_t stop_after = 0;  // generated tokens; 0: none
  int32_t read_pace = 0;   // tokens that it reads a step
  bool cancelled = false;
};

struct Record {
  RequestId id = 0;
  int model = 0;
  std::string tenant;
  int32_t priority = 0;
  absl::Time deadline;
  int64_t bytes = 0;
  bool shares_prefix = false;
  int32_t prompt_tokens = 0;
  int32_t max_length = 0;
  int32_t max_kv_tokens = 0;
  std::vector<int32_t> prompt;
  std::vector<std::vector<int32_t>> continuations;
  Wish wish;

  // By its own content: model, tenant, salt, gates and all tokens up to there.
  uint64_t root = 0;
  std::vector<int32_t> tokens;    // the prompt and what follows
  std::vector<uint64_t> content;  // [position]
  size_t continuation = 0;        // that follows
  int32_t generated = 0;
  int32_t unread = 0;  // in its stream

  bool running = false;
  bool admitted = false;               // ever
  const Sequence* sequence = nullptr;  // since it was first seen in a plan
  int32_t computed = 0;
  int32_t next_row = 0;  // first position whose logits are still to be used
  int32_t preemptions = 0;
  bool gathered = false;      // was sent back because it was in its own way
  int64_t published = 0;      // blocks of each table that it has offered
  int32_t most_computed = 0;  // ever, of this continuation
  std::vector<std::vector<int64_t>> blocks;  // [group][entry] offset, -1: hole

  int32_t length() const { return static_cast<int32_t>(tokens.size()); }
  bool decoding() const {
    return length() > prompt_tokens && length() - computed == 1;
  }
  // Tokens that it must have blocks for to be let in: all, once it has been
  // sent back three times or gathered.
  int32_t to_admit() const {
    return gathered || preemptions >= Scheduler::kMaxPreemptions ? max_kv_tokens
                                                                 : length();
  }
  bool can_be_preempted() const {
    return !gathered && preemptions < Scheduler::kMaxPreemptions &&
           !blocks.empty();
  }
  bool scores() const { return !continuations.empty(); }
  // Of which blocks may be shared.
  int32_t lasting() const {
    return scores() && computed > prompt_tokens ? prompt_tokens : computed;
  }
};

struct ModelRecord {
  SchedulerModel model;
  uint64_t root = 0;  // unlike that of any other model, or of an earlier one
  int lane = 0;       // its base's index, or its own
  bool shares_prefix = false;
  int64_t floor_slabs = 0;
  int64_t ceiling_slabs = 0;
  int running = 0;
  int waiting = 0;
  int64_t lent_before = 0;  // slabs, when the step began
  int starved = 0;          // steps; see Oracle::CheckFloors
};

}  // namespace headcount::sim
