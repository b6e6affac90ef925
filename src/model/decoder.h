// The forward pass of a Llama decoder (Touvron et al. 2023, arXiv:2302.13971),
// pre-norm, over compacted weights; with biases, norms of queries and keys and
// sliding windows where the model has them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backend/backend.h"
#include "heads/head_layout.h"
#include "heads/kv_geometry.h"
#include "model/batch.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace headcount {

// What a decoder computes with; all of it outlives the decoder.
struct DecoderParts {
  const ModelConfig* config = nullptr;
  const HeadLayout* layout = nullptr;
  absl::Span<const KvGeometry> geometries;  // [group]
  const Weights* weights = nullptr;
  Backend* backend = nullptr;
};

// Not thread-safe. A step allocates nothing once vectors have grown.
class Decoder {
 public:
  // Reserves workspaces for steps of `max_rows` tokens and `max_logits_rows`
  // rows of logits. InvalidArgument when their size overflows.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(
      const DecoderParts& parts, int32_t max_rows, int32_t max_logits_rows);

  // See Model::Forward.
  Logits Forward(const Batch& batch, void* arena);

  int64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  Decoder(const DecoderParts& parts, int32_t max_rows, int32_t max_logits_rows);

  absl::Status AllocateWorkspaces();
  absl::StatusOr<std::unique_ptr<Buffer>> Floats(int64_t rows, int64_t cols);
  // Fills the vectors below from `batch`.
  StepInputs BuildStep(const Batch& batch);
  // Appends those of kept heads to head_gates_.
  void AddGates(absl::Span<const float> gates);
  void RunAttention(size_t layer, int64_t rows, void* arena);
  void RunFeedForward(size_t layer, int64_t rows);

  const DecoderParts parts_;
  const int32_t max_rows_;
  const int32_t max_logits_rows_;
  const Rope rope_;
  std::vector<size_t> class_layer_;  // [layer class] a layer of that class
  std::vector<int64_t> query_heads_below_;  // [layer] kept in those before

  // Workspaces, float32.
  std::unique_ptr<Buffer> residual_;  // [max_rows, hidden]
  std::unique_ptr<Buffer> normed_;    // [max_rows, hidden]
  std::unique_ptr<Buffer> wide_;      // [max_rows, max of qkv and 2 ffn]
  std::unique_ptr<Buffer> narrow_;    // [max_rows, max of q heads and ffn]
  std::unique_ptr<Buffer> ones_;      // [max_rows]; null if no layer needs it
  std::unique_ptr<Buffer> logits_;    // [max_logits_rows, vocab]
  int64_t workspace_bytes_ = 0;

  // One step, on the host.
  std::vector<int32_t> tokens_;          // [rows]
  std::vector<int32_t> positions_;       // [rows]
  std::vector<StepSequence> sequences_;  // at least the batch's; reused
  std::vector<int64_t> block_offsets_;
  std::vector<float> head_gates_;  // of kept heads; empty: no sequence has any
  std::vector<AttentionPlan> plans_;         // [layer class]
  std::vector<int32_t> logits_row_indices_;  // rows whose logits are asked for
};

}  // namespace headcount
