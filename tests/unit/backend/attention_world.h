// Sequences with random queries, keys and values, and what attention over them
// is: by a backend, in any schedule of steps, and in double precision.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "backend/backend.h"
#include "heads/head_layout.h"
#include "heads/head_slots.h"
#include "heads/kv_geometry.h"

namespace headcount {

struct AttentionCase {
  LayerShape shape;
  std::set<int> pruned = {};  // query heads of the layer
  int head_dim = 32;
  KvDtype dtype = KvDtype::kF32;
  std::map<int, KvDtype> head_dtypes = {};  // of KV heads that differ from it
  int window = 0;                           // tokens; 0: full
  int sink = 0;                             // beside a window
  std::vector<int> lengths = {};            // of the sequences
};

// Of one sequence, the next `rows` tokens.
struct ScheduledRows {
  int sequence = 0;
  int rows = 1;
};
using Schedule = std::vector<std::vector<ScheduledRows>>;  // [step]

class AttentionWorld {
 public:
  AttentionWorld(const AttentionCase& attention_case, uint32_t seed);

  // Every token by itself, one sequence after the other.
  Schedule OneByOne() const;
  // Random sequences with random numbers of rows in every step.
  Schedule RandomSchedule(uint32_t seed) const;

  // Runs `schedule` in a new arena whose unused bytes are NaN, and so are those
  // of blocks that no later query sees. Returns the output of all tokens,
  // [sequence][token][query heads * head_dim].
  std::vector<float> Run(const Schedule& schedule,
                         const AttentionPlanOptions& options, Backend* backend,
                         uint32_t block_seed) const;

  // The same in double precision, from the stored keys and values.
  std::vector<double> Reference() const;

  // Multiplies the projections of one token.
  void ScaleToken(int64_t token, float factor);

  int64_t out_width() const;

 private:
  int64_t qkv_width() const;
  int64_t FirstToken(int sequence) const;
  void GiveBackUnseen(int position, void* arena,
                      std::vector<int64_t>* blocks) const;
  std::vector<float> Head(int64_t token, int position, int64_t slot,
                          bool rotated) const;

  AttentionCase case_;
  HeadLayout layout_;
  std::vector<KvGeometry> geometries_;
  Rope rope_;
  int64_t tokens_ = 0;
  std::vector<float> qkv_;  // [tokens, qkv_width]
};

}  // namespace headcount
