// Weights on a backend, compacted by a HeadLayout, and the step over them.
//
//   absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(
//       {.path = "models/mailroom", .mask = mask, .max_step_tokens = 256},
//       backend);
//   absl::StatusOr<Logits> logits = (*model)->Forward(batch, arena);
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "backend/backend.h"
#include "heads/head_layout.h"
#include "heads/kv_geometry.h"
#include "model/batch.h"
#include "model/model_config.h"

namespace headcount {

struct ModelOptions {
  std::string path;            // a Hugging Face directory, or GGUF (FindGguf)
  HeadMask mask = {};          // joined with the mask file and config.json's
  std::string mask_file = {};  // heads/1; empty: none
  KvDtype kv_dtype = KvDtype::kF16;
  Precision precision = Precision::kFast;
  // Rows of the largest step: workspaces are reserved for it at load.
  int32_t max_step_tokens = 256;
  // Logits rows of the largest step.
  int32_t max_logits_rows = 256;
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
  const HeadLayout& layout() const;
  const std::vector<KvGeometry>& geometries() const;  // [group]
  int64_t kv_bytes_per_token() const;
  int64_t weight_bytes() const;  // resident on the backend
  int64_t workspace_bytes() const;
  // Weight bytes that the file holds but the mask left out.
  int64_t pruned_weight_bytes() const;
  const std::string& sha256() const;  // of the weights; empty if never needed

  // Runs the batch. CHECKs that it fits max_step_tokens and max_logits_rows,
  // that ids are in the vocabulary and that the blocks have room.
  absl::StatusOr<Logits> Forward(const Batch& batch, void* arena);

 private:
  struct Impl;
  explicit Model(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace headcount
