// A backend that does what another does and remembers what the attention of
// each layer read and put out.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"

namespace headcount {

class RecordingBackend : public Backend {
 public:
  // What one layer did in one step.
  struct Seen {
    int layer = 0;
    std::vector<float> residual;  // [rows, hidden] what it read
    std::vector<float> context;   // [rows, query heads x head_dim]
  };

  explicit RecordingBackend(std::unique_ptr<Backend> real)
      : real_(std::move(real)) {}

  // In the order of the steps and layers.
  std::vector<Seen> seen;

  std::string name() const override { return real_->name(); }
  absl::Status CheckHeads(int head_dim, KvDtype dtype) const override {
    return real_->CheckHeads(head_dim, dtype);
  }
  int64_t FreeBytes() const override { return real_->FreeBytes(); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return real_->Allocate(bytes);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(const MatrixSource& source,
                                               Precision precision) override {
    return real_->Pack(source, precision);
  }
  void CopyToDevice(const void* host, int64_t bytes, void* device) override {
    real_->CopyToDevice(host, bytes, device);
  }
  void CopyToHost(const void* device, int64_t bytes, void* host) override {
    real_->CopyToHost(device, bytes, host);
  }
  void BeginStep(const StepInputs& inputs, const Rope& rope) override {
    rows_ = inputs.tokens.size();
    real_->BeginStep(inputs, rope);
  }
  void EndStep() override { real_->EndStep(); }
  void Embed(const Matrix& table, float* out) override {
    real_->Embed(table, out);
  }
  void RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows,
               int64_t cols, float* out) override {
    normed_.assign(x, x + rows * cols);
    real_->RmsNorm(x, weight, epsilon, rows, cols, out);
  }
  void MatMul(const Matrix& w, const float* x, int64_t rows, const float* bias,
              MatMulMode mode, float* out) override {
    real_->MatMul(w, x, rows, bias, mode, out);
  }
  void RotateAndStoreKv(const AttentionLayer& layer, float* qkv,
                        void* arena) override {
    real_->RotateAndStoreKv(layer, qkv, arena);
  }
  void Attention(const AttentionLayer& layer, const float* qkv,
                 const void* arena, float* out) override {
    real_->Attention(layer, qkv, arena, out);
    const size_t width = static_cast<size_t>(layer.query_heads) *
                         static_cast<size_t>(layer.head_dim);
    seen.push_back(
        {layer.layer, normed_, std::vector<float>(out, out + rows_ * width)});
  }
  void GateHeads(const AttentionLayer& layer, float* context) override {
    real_->GateHeads(layer, context);
  }
  void SwiGlu(const float* x, int64_t rows, int64_t width,
              float* out) override {
    real_->SwiGlu(x, rows, width, out);
  }
  void GatherRows(const float* x, int64_t cols, float* out) override {
    real_->GatherRows(x, cols, out);
  }
  std::vector<SampleResult> Sample(const float* logits, int64_t vocab,
                                   absl::Span<const SampleRow> rows) override {
    return real_->Sample(logits, vocab, rows);
  }

 private:
  const std::unique_ptr<Backend> real_;
  size_t rows_ = 0;            // of the step
  std::vector<float> normed_;  // what RmsNorm read last
};

}  // namespace headcount
