#include "backend/cpu/cpu_backend.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/host_buffer.h"
#include "backend/cpu/host_memory.h"
#include "backend/cpu/kv_store.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/packed_matrix.h"
#include "backend/cpu/row_ops.h"
#include "backend/cpu/step_state.h"
#include "backend/cpu/thread_pool.h"
#include "base/check.h"
#include "hwy/highway.h"

namespace headcount {
namespace {

// Kernels are compiled for the same targets as this file, and the best is the
// lowest bit.
const char* TargetName() {
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return hwy::TargetName(targets & -targets);
}

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, bool amx) : pool_(threads) { matmul_.amx = amx; }

  std::string name() const override {
    return absl::StrCat("cpu (", TargetName(), ", ", pool_.threads(),
                        pool_.threads() == 1 ? " thread)" : " threads)");
  }

  absl::Status CheckHeads(int /*head_dim*/, KvDtype /*dtype*/) const override {
    return absl::OkStatus();
  }

  int64_t FreeBytes() const override { return FreeHostBytes(); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return HostBuffer::Create(bytes);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(const MatrixSource& source,
                                               Precision precision) override {
    return PackedMatrix::Create(source, precision, &pool_);
  }
  void CopyToDevice(const void* host, int64_t bytes, void* device) override {
    std::memcpy(device, host, static_cast<size_t>(bytes));
  }
  void CopyToHost(const void* device, int64_t bytes, void* host) override {
    std::memcpy(host, device, static_cast<size_t>(bytes));
  }

  void BeginStep(const StepInputs& inputs, const Rope& rope) override {
    CHECK(inputs.tokens.size() == inputs.positions.size());
    step_.inputs = inputs;
    step_.rope.Compute(rope, inputs.positions, &pool_);
    step_.row_sequence.resize(inputs.tokens.size());
    for (size_t s = 0; s < inputs.sequences.size(); ++s) {
      const StepSequence& sequence = inputs.sequences[s];
      for (int32_t row = 0; row < sequence.num_rows; ++row) {
        const int32_t step_row = sequence.first_row + row;
        step_.row_sequence[static_cast<size_t>(step_row)] =
            static_cast<int32_t>(s);
      }
    }
  }

  void Embed(const Matrix& table, float* out) override {
    headcount::Embed(Packed(table), step_.inputs.tokens, out, &pool_);
  }

  void RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows,
               int64_t cols, float* out) override {
    headcount::RmsNorm({.x = x,
                        .weight = weight,
                        .epsilon = epsilon,
                        .rows = rows,
                        .cols = cols,
                        .out = out},
                       &pool_);
  }

  void MatMul(const Matrix& w, const float* x, int64_t rows, const float* bias,
              MatMulMode mode, float* out) override {
    headcount::MatMul({.w = &Packed(w),
                       .x = x,
                       .rows = rows,
                       .bias = bias,
                       .mode = mode,
                       .out = out},
                      &matmul_, &pool_);
  }

  void RotateAndStoreKv(const AttentionLayer& layer, float* qkv,
                        void* arena) override {
    headcount::RotateAndStoreKv(step_, layer, qkv, arena, &pool_);
  }

  void Attention(const AttentionLayer& layer, const float* qkv,
                 const void* arena, float* out) override {
    headcount::Attention({.step = &step_,
                          .layer = &layer,
                          .qkv = qkv,
                          .arena = arena,
                          .out = out},
                         &attention_, &pool_);
  }

  void GateHeads(const AttentionLayer& layer, float* context) override {
    headcount::GateHeads(step_.inputs, layer, context);
  }

  void SwiGlu(const float* x, int64_t rows, int64_t width,
              float* out) override {
    headcount::SwiGlu(x, rows, width, out, &pool_);
  }

  void GatherRows(const float* x, int64_t cols, float* out) override {
    headcount::GatherRows(x, step_.inputs.logits_rows, cols, out);
  }

  std::vector<SampleResult> Sample(const float* logits, int64_t vocab,
                                   absl::Span<const SampleRow> rows) override {
    std::vector<SampleResult> results(rows.size());
    sample_scratch_.resize(static_cast<size_t>(pool_.threads()));
    pool_.Run(static_cast<int64_t>(rows.size()), [&](int64_t i, int worker) {
      const SampleRow& row = rows[static_cast<size_t>(i)];
      results[static_cast<size_t>(i)] =
          SampleOne(absl::MakeConstSpan(logits + row.logits_row * vocab,
                                        static_cast<size_t>(vocab)),
                    row, &sample_scratch_[static_cast<size_t>(worker)]);
    });
    return results;
  }

 private:
  // Every matrix of this backend was made by Pack.
  static const PackedMatrix& Packed(const Matrix& matrix) {
    return static_cast<const PackedMatrix&>(matrix);
  }

  ThreadPool pool_;
  StepState step_;
  MatMulWorkspace matmul_;
  AttentionWorkspace attention_;
  std::vector<SampleScratch> sample_scratch_;  // [worker]
};

}  // namespace

std::unique_ptr<Backend> CreateCpuBackend(const CpuBackendOptions& options) {
  return std::make_unique<CpuBackend>(
      options.threads > 0 ? options.threads : AvailableCores(), options.amx);
}

}  // namespace headcount
