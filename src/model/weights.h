// The weights of a decoder on a backend: fused where one product reads the same
// input, and compacted by a HeadLayout.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "backend/backend.h"
#include "format/checkpoint.h"
#include "heads/head_layout.h"
#include "model/model_config.h"
#include "model/output_repair.h"

namespace headcount {

// q, kv: kept heads of the layer; D: head_dim; ffn: its width. Null: the layer
// has no such weight. Vectors are float32.
struct LayerWeights {
  std::unique_ptr<Buffer> attention_norm;      // [hidden]
  std::unique_ptr<Matrix> qkv;                 // [(q + 2 kv) D, hidden]
  std::unique_ptr<Buffer> qkv_bias;            // [(q + 2 kv) D]
  std::unique_ptr<Buffer> q_norm;              // [D]
  std::unique_ptr<Buffer> k_norm;              // [D]
  std::unique_ptr<Matrix> attention_out;       // [hidden, q D]
  std::unique_ptr<Buffer> attention_out_bias;  // [hidden]
  // What is left of the attention of a layer whose heads are all pruned: the
  // bias of its output projection, as the projection of a constant 1.
  std::unique_ptr<Matrix> constant_out;  // [hidden, 1]

  std::unique_ptr<Buffer> ffn_norm;      // [hidden]; null: no feed-forward
  std::unique_ptr<Matrix> gate_up;       // [2 ffn, hidden]
  std::unique_ptr<Buffer> gate_up_bias;  // [2 ffn]
  std::unique_ptr<Matrix> down;          // [hidden, ffn]
  std::unique_ptr<Buffer> down_bias;     // [hidden]
};

struct Weights {
  std::unique_ptr<Matrix> embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  std::unique_ptr<Buffer> final_norm;  // [hidden]
  std::unique_ptr<Matrix> output;      // [vocab, hidden]; null: the embedding

  int64_t resident_bytes = 0;  // on the backend
  int64_t pruned_bytes = 0;    // of the file, left out by the layout
};

// Names are those of weight_names.h. Every tensor that `config` implies must be
// there with its shape, pruned or not, and an error names the tensor; others
// are ignored. Heads of config.json's `pruned_heads` may be out of the tensors
// already (model/stored_heads.h). Rows and columns of pruned heads are never
// read. What `repair` has, which may be null, stands in for the output
// projections of attention.
struct WeightSources {
  const Checkpoint* checkpoint = nullptr;
  const OutputRepair* repair = nullptr;  // null: none
  // See ModelOptions::progress.
  std::function<void(int64_t read, int64_t total)> progress = nullptr;
};
absl::StatusOr<Weights> LoadWeights(const ModelConfig& config,
                                    const HeadLayout& layout,
                                    const WeightSources& sources,
                                    Precision precision, Backend* backend);

}  // namespace headcount
