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
#include "model/variant.h"
#include "model/weights.h"

namespace headcount {

// What a decoder computes with; all of it outlives the decoder.
struct DecoderParts {
  const ModelConfig* config = nullptr;
  const Variant* whole = nullptr;  // all heads of the weights
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

  // See Model::ReserveSteps.
  absl::Status ReserveSteps(const Variant& variant, int32_t max_context);

  // See Model::Forward.
  Logits Forward(const Batch& batch, void* arena);

  int64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  Decoder(const DecoderParts& parts, int32_t max_rows, int32_t max_logits_rows);

  absl::Status AllocateWorkspaces();
  absl::StatusOr<std::unique_ptr<Buffer>> Floats(int64_t rows, int64_t cols);
  AttentionLayer LayerOf(size_t layer,
                         absl::Span<const VariantLayer> variants) const;
  // The first layer that the step has to compute: the least first_layer.
  size_t FirstLayer(const Batch& batch) const;
  // Before `layer`, the number of layers included: rows of sequences that are
  // taken up there are read, and those of others kept.
  void ExchangeInputs(const Batch& batch, size_t layer, size_t first_layer);
  void RunLayers(const Batch& batch, void* arena);
  void RunAttention(size_t layer, int64_t rows, void* arena);
  void RunFeedForward(size_t layer, int64_t rows);

  // decoder_step.cc.
  // Fills the vectors below from `batch`.
  StepInputs BuildStep(const Batch& batch);
  // The place of `variant` in variants_, where it is then.
  int32_t VariantIndex(const Variant* variant);
  // Appends those of the weights' heads to head_gates_.
  void AddGates(absl::Span<const float> gates);
  void PlanLayers(absl::Span<const StepSequence> sequences);
  void ClassifyLayers();
  void ListLayers();

  // decoder_statistics.cc.
  // The rows of `sequence` whose heads are looked at.
  void AddCounted(const BatchSequence& sequence, const StepSequence& rows);
  // Adds what the heads of a layer have put out, before its projection.
  void CountHeads(size_t layer, int64_t rows);
  // Tells `statistics` the projection of the heads in `slots`.
  void TellProjection(size_t layer, absl::Span<const int> slots,
                      HeadStatistics* statistics);

  const DecoderParts parts_;
  const int32_t max_rows_;
  const int32_t max_logits_rows_;
  const Rope rope_;
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
  struct Counted {
    HeadStatistics* to = nullptr;
    int32_t first_row = 0;
    int32_t num_rows = 0;
    size_t variant = 0;  // in variants_
  };
  std::vector<Counted> counted_;          // mostly empty
  bool exchanges_ = false;                // ExchangeInputs has something to do
  std::vector<const Variant*> variants_;  // of its sequences, each once
  std::vector<uint64_t> variant_ids_;     // of those
  std::vector<VariantLayer> layer_variants_;  // [layer, variant]
  std::vector<AttentionLayer> layers_;        // those that have attention
  std::vector<size_t> layer_index_;           // [layer] -> layers_
  // Layers that are alike in every variant of the step share a plan.
  std::vector<int> layer_class_;                // [layer]
  std::vector<size_t> class_layer_;             // [layer class] its first layer
  std::vector<const LayerHeads*> layer_heads_;  // [variant] of one layer
  std::vector<AttentionPlan> plans_;         // at least [layer class]; reused
  std::vector<int32_t> logits_row_indices_;  // rows whose logits are asked for
};

}  // namespace headcount
