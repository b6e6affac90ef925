// Drives a Model over a paged arena, as the engine does, for tests.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kv/block_pool.h"
#include "kv/block_table.h"
#include "model/model.h"

namespace headcount {

using LogitsRow = std::vector<float>;  // [vocab]

struct ModelRunnerOptions {
  ModelOptions model;
  int64_t pool_tokens = 4096;
};

class ModelRunner {
 public:
  // Aborts when the model cannot be loaded. The backend outlives the runner.
  ModelRunner(Backend* backend, const ModelRunnerOptions& options);

  const Model& model() const { return *model_; }
  // See Model::ReserveSteps; all heads.
  absl::Status ReserveSteps(int32_t max_context) {
    return model_->ReserveSteps(*model_->whole(), max_context);
  }
  // Gives sequences a variant to name; 0 is the model itself. Aborts when it
  // cannot be made.
  size_t AddVariant(const VariantOptions& options);
  const Variant& variant(size_t index) const {
    return *variants_[index].variant;
  }
  const BlockPool& pool() const { return *pool_; }

  // One sequence with its blocks; freed with the object.
  struct Sequence {
    size_t variant = 0;
    std::vector<BlockTable> tables = {};  // [group]
    int32_t past = 0;
    std::vector<float> gates = {};         // as BatchSequence::head_gates
    HeadStatistics* statistics = nullptr;  // the same
    int32_t statistics_from = 0;
  };
  struct Feed {
    Sequence* sequence = nullptr;
    absl::Span<const int32_t> tokens;
    int32_t logits_rows = 0;
  };
  // One step; the rows of logits that were asked for. Blocks that the next
  // token of a sequence does not see go back to the pool.
  std::vector<LogitsRow> Step(const std::vector<Feed>& feeds);

  // The logits after each token of a prompt, fed `chunk` tokens a step.
  std::vector<LogitsRow> Prefill(Sequence* sequence,
                                 absl::Span<const int32_t> ids, int32_t chunk);
  std::vector<LogitsRow> RunAlone(absl::Span<const int32_t> ids, int32_t chunk,
                                  size_t variant = 0);
  // The same for several prompts, in steps together: prompt i is fed
  // chunks[i] tokens a step, so that they end at different times, and runs
  // variants[i], or the model itself where there are none.
  std::vector<std::vector<LogitsRow>> RunTogether(
      const std::vector<std::vector<int32_t>>& prompts,
      const std::vector<int32_t>& chunks,
      const std::vector<size_t>& variants = {});
  // Prompts and `steps` tokens, each the one with the highest logit.
  std::vector<int32_t> Greedy(absl::Span<const int32_t> ids, size_t steps);

 private:
  void Add(std::shared_ptr<const Variant> variant);

  Backend* backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<BlockPool> pool_;
  struct Runnable {
    std::shared_ptr<const Variant> variant;
    std::vector<GroupId> groups;
  };
  std::vector<Runnable> variants_;
  std::unique_ptr<Buffer> arena_;
};

}  // namespace headcount
