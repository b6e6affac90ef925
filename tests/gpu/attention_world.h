// Random attention problems: paged keys and values of every format, what the
// kernels should make of them, computed in double precision over the values
// that are stored, and the run of a kernel on the device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "backend/balanced_plan.h"
#include "backend/cuda/attention_kernels.h"
#include "backend/cuda/attention_work.h"
#include "heads/head_layout.h"
#include "heads/kv_geometry.h"

namespace headcount::gpu {

struct SequenceCase {
  int past = 0;
  int rows = 1;
};

struct AttentionCase {
  std::vector<int> groups;  // query heads of each KV head
  int head_dim = 64;
  KvDtype dtype = KvDtype::kBf16;
  // Of quantised pages; in a static scale's place, an element's of the page is
  // never read.
  KvScale scale = KvScale::kToken;
  std::vector<SequenceCase> sequences;
  int window = 0;
  int sink = 0;
  cuda::Activation activation = cuda::Activation::kF32;
  bool causal = true;
  int workers = 7;
  int min_tokens = 64;  // of a part of a split sequence
  bool bulk = true;
  uint32_t seed = 1;
};

std::string Describe(const AttentionCase& attention_case);

// What stands in memory, and what should come out.
class AttentionWorld {
 public:
  explicit AttentionWorld(const AttentionCase& attention_case);

  // Runs the kernels that the case needs and returns how far the output is from
  // the reference: the norm of the difference over the norm of the reference.
  // Infinite when a number is missing, or a counter was not reset.
  double RelativeError() const;

  // What attention cannot do without, in bytes: the pages that exist, queries
  // and outputs.
  int64_t FloorBytes() const;

 private:
  const LayerHeads& heads() const;
  void MakeSequences();
  void MakePages();
  // Stores the key or value of a token and returns what is stored.
  std::vector<double> StoreRow(const KvPage& page, std::byte* block, int token,
                               bool is_value, float static_scale);
  void MakeQueries();
  void MakeReference();
  void Attend(size_t sequence, int row, size_t slot, int query);

  AttentionCase case_;
  std::optional<HeadLayout> layout_;
  std::optional<KvGeometry> geometry_;
  std::mt19937 random_;
  std::vector<StepSequence> sequences_;
  int rows_ = 0;
  std::vector<int64_t> blocks_;
  std::vector<std::byte> arena_;
  std::vector<float> static_scales_;  // [slot][K, V]
  std::vector<double> queries_;       // [row][query head][head_dim]
  // [sequence][slot][K, V]: [token][head_dim]
  std::vector<std::vector<std::array<std::vector<double>, 2>>> stored_;
  std::vector<double> reference_;  // as queries_
};

}  // namespace headcount::gpu
