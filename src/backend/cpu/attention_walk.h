// A work item of attention with its addresses, and the two kernels that walk
// it: one for pages of floats, one for pages of integers. For both, an item is
// walked chunk by chunk. For a chunk: scores of all its tokens, softmax over
// them, then the weighted sum of values; chunks are joined from left to right.
// All three steps hold a tile of results in registers, with the (row, query
// head) pairs of the item ("queries" below) in one direction and 16 tokens, or
// some elements of the head, in the other: so a key or value that was loaded
// serves the whole ragged group and all rows.
//
// No result depends on its neighbours in a tile. A query's numbers are made by
// the same chain of operations wherever it stands, and its chain goes from the
// first token that it sees to the last.
#pragma once

#include <cstddef>
#include <cstdint>

#include "heads/kv_geometry.h"
#include "heads/kv_group.h"

namespace headcount {

// Queries whose scores of a chunk are held at a time.
inline constexpr int kMaxQueries = 48;

inline constexpr int kMaxHeadDim = 256;
// From one query to the next; a little more, so that they do not compete for
// the same cache sets.
inline constexpr int kQueryStride = kMaxHeadDim + 16;

// An unfinished result: [head_dim] the weighted sum of values, then the highest
// score (in units of log 2) and the sum of weights; a sum of 0 says that no
// token was seen.
constexpr int64_t StateSize(int64_t head_dim) { return head_dim + 2; }

// A work item with its addresses.
struct Walk {
  int head_dim = 0;
  int num_queries = 0;  // of the group: query i is row i / num_queries
  int num_rows = 0;
  int64_t first_position = 0;  // of the first row
  Retention retention;
  int64_t kv_begin = 0;  // a multiple of kBlockTokens
  int64_t kv_end = 0;
  int64_t chunk_tokens = 0;
  const float* q = nullptr;    // slot 0 of the first row
  int64_t q_stride = 0;        // elements from one row to the next
  const int* slots = nullptr;  // [num_queries] of the projection
  KvPage page;
  const std::byte* arena = nullptr;
  const int64_t* blocks = nullptr;  // of the sequence, in the arena

  int total_queries() const { return num_rows * num_queries; }
};

// What a worker needs to walk; sizes in floats.
struct WalkScratch {
  float* q = nullptr;       // [kMaxQueries][kQueryStride]
  float* scores = nullptr;  // [chunk blocks][kMaxQueries][kBlockTokens]
  float* chunk = nullptr;   // [kMaxQueries] states

  static int64_t Size(int64_t head_dim, int64_t chunk_tokens) {
    return kMaxQueries * (kQueryStride + chunk_tokens + StateSize(head_dim));
  }
  static WalkScratch In(float* memory, int64_t chunk_tokens) {
    WalkScratch scratch;
    scratch.q = memory;
    scratch.scores = scratch.q + kMaxQueries * kQueryStride;
    scratch.chunk = scratch.scores + kMaxQueries * chunk_tokens;
    return scratch;
  }
};

// Computes the states of all queries of an item. states: [total_queries()]
void WalkFloatPages(const Walk& walk, const WalkScratch& scratch,
                    float* states);  // f32, f16, bf16, fp8_e4m3
void WalkIntegerPages(const Walk& walk, const WalkScratch& scratch,
                      float* states);  // int8, int4

}  // namespace headcount
