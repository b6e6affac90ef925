// What a device could do at best: the roofline of Williams et al. 2009
// (doi:10.1145/1498765.1498785). A step takes at least as long as reading its
// bytes once, and at least as long as its arithmetic.
#pragma once

#include <cstdint>
#include <string>

#include "cli/gpus.h"
#include "headcount/v1/model.pb.h"

namespace headcount {

// In which every sequence of a full pool gets a token. Bytes: all weights once,
// and keys and values of every sequence.
struct Roofline {
  int64_t sequences = 0;
  double step_bytes = 0;
  double weight_part = 0;  // of step_bytes
  double step_flops = 0;

  // 0 where the device's speed is unknown, or nothing runs.
  double read_seconds = 0;
  double compute_seconds = 0;
  double tokens_per_second = 0;
  // Of a prompt of context_tokens, alone.
  double prefill_seconds = 0;
  // From so many sequences on arithmetic takes longer than reading; 0: never,
  // because each reads longer than it computes.
  int64_t compute_bound_from = 0;

  // "memory", "bandwidth", "compute" or "scheduler"; empty: unknown.
  std::string binds;
  std::string why;  // a sentence
};

// Of an encoder, which answers a sequence in one step, the step is that of one
// sequence of context_tokens.
Roofline RooflineOf(const v1::CapacityPlan& plan, const Device& device);

// It has no output that is a next token, and caches nothing.
bool IsEncoder(const v1::CapacityPlan& plan);

// Sequences that run at once: those that the pool admits, but no more than the
// scheduler lets run.
int64_t SequencesAtOnce(const v1::CapacityPlan& plan);

}  // namespace headcount
