// Weights on a backend, compacted by a HeadLayout, and the step over them.
//
//   absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(
//       {.path = "models/mailroom", .mask = mask, .max_step_tokens = 256},
//       backend);
//   absl::StatusOr<Logits> logits = (*model)->Forward(batch, arena);
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backend/backend.h"
#include "heads/head_layout.h"
#include "heads/kv_geometry.h"
#include "model/batch.h"
#include "model/model_config.h"
#include "model/variant.h"

namespace headcount {

struct ModelOptions {
  std::string path;            // a Hugging Face directory, or GGUF (FindGguf)
  HeadMask mask = {};          // joined with the mask file and config.json's
  std::string mask_file = {};  // heads/1; empty: none
  KvDtype kv_dtype = KvDtype::kF16;
  KvHeadRules kv_head_rules = {};  // of the KV heads that differ from it
  Precision precision = Precision::kFast;
  // Rows of the largest step: workspaces are reserved for it at load.
  int32_t max_step_tokens = 256;
  // Logits rows of the largest step.
  int32_t max_logits_rows = 256;
  // Called on the thread that loads: bytes of the weights' tensors that are
  // done with, pruned or not, rising to all of them. Null: nobody asks.
  std::function<void(int64_t read, int64_t total)> progress = nullptr;
};

// Which heads a variant of a loaded model runs.
struct VariantOptions {
  // Joined; in head numbers of the unpruned model. Neither: the model's own.
  // What the model has pruned must be pruned here as well.
  HeadMask mask = {};
  std::string mask_file = {};  // heads/1; empty: none
  KvDtype kv_dtype = KvDtype::kF16;
  KvHeadRules kv_head_rules = {};  // of the KV heads that differ from it
};

// Rows of logits, in batch order, on the device; valid until the next Forward.
struct Logits {
  const float* data = nullptr;  // [rows, vocab]
  int64_t rows = 0;
  int64_t vocab = 0;
};

// Not thread-safe. The backend outlives the model.
class Model {
 public:
  // Everything that a file can get wrong is a Status; nothing stays allocated
  // then.
  static absl::StatusOr<std::unique_ptr<Model>> Load(
      const ModelOptions& options, Backend* backend);
  ~Model();

  const ModelConfig& config() const;
  // Of all heads that the weights hold.
  const HeadLayout& layout() const;
  const std::vector<KvGeometry>& geometries() const;  // [group]
  int64_t kv_bytes_per_token() const;
  const std::shared_ptr<const Variant>& whole() const;
  int64_t weight_bytes() const;  // resident on the backend
  int64_t workspace_bytes() const;
  // Weight bytes that the file holds but the mask left out.
  int64_t pruned_weight_bytes() const;
  const std::string& sha256() const;  // of the weights; empty if never needed

  // A variant for the sequences of this model's batches, on any thread and
  // beside Forward. It takes no memory of the backend. InvalidArgument as Load
  // for what the mask names, and for a head that this model has pruned. A mask
  // file that names weights makes this read and hash those of the model.
  absl::StatusOr<std::shared_ptr<const Variant>> MakeVariant(
      const VariantOptions& options) const;

  // Reserves what steps need beside this model's own workspaces when sequences
  // of `variant` in them have up to `max_context` tokens. ResourceExhausted
  // when the backend has no room.
  absl::Status ReserveSteps(const Variant& variant, int32_t max_context);

  // Runs the batch. CHECKs that it fits max_step_tokens and max_logits_rows,
  // that ids are in the vocabulary and that the blocks have room.
  absl::StatusOr<Logits> Forward(const Batch& batch, void* arena);

 private:
  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace headcount
