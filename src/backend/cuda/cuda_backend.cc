#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backend/cpu/thread_pool.h"
#include "backend/cuda/attention_kernels.h"
#include "backend/cuda/device_memory.h"
#include "backend/cuda/graph_device.h"
#include "backend/cuda/kv_write.h"
#include "backend/cuda/matmul_kernels.h"
#include "backend/cuda/packed_weights.h"
#include "backend/cuda/row_kernels.h"
#include "backend/cuda/sample_batch.h"
#include "backend/cuda/sampling_kernels.h"
#include "backend/cuda/step_tables.h"
#include "base/check.h"

namespace headcount::cuda {
namespace {

// Of a product at once, so that what it needs of scratch memory stays small (of
// a row, four bytes for each column). The bits of a row do not depend on it,
// and weights that are read once for so many cost little.
constexpr int64_t kMaxProductRows = 1024;
constexpr int64_t kPackBytes = int64_t{64} << 20;  // on their way at once
// Of steps that go out as graphs. Beyond, launches are a small part of a step
// (docs/gpu_results.md: with 32 rows 7 %), and each number of rows is a graph.
constexpr size_t kMaxGraphRows = 64;

constexpr auto kFloatBytes = static_cast<int64_t>(sizeof(float));
constexpr auto kCounterBytes = static_cast<int64_t>(sizeof(int32_t));
constexpr auto kResultBytes = static_cast<int64_t>(sizeof(DeviceSampleResult));

class CudaMatrix final : public Matrix {
 public:
  CudaMatrix(const PackedLayout& layout, std::unique_ptr<DeviceBuffer> storage)
      : layout_(layout), storage_(std::move(storage)) {}

  int64_t rows() const override { return layout_.rows; }
  int64_t cols() const override { return layout_.cols; }
  int64_t bytes() const override { return storage_->bytes(); }

  const PackedLayout& layout() const { return layout_; }
  const std::byte* weights() const {
    return static_cast<const std::byte*>(storage_->data());
  }

 private:
  const PackedLayout layout_;
  const std::unique_ptr<DeviceBuffer> storage_;
};

// Every matrix of this backend was made by Pack.
const CudaMatrix& Packed(const Matrix& matrix) {
  return static_cast<const CudaMatrix&>(matrix);
}

template <class Params>
Kernel<Params> KernelOf(const AttentionKernel& kernel) {
  return {kernel.kernel, kernel.threads, kernel.shared_bytes};
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::unique_ptr<Device> device, int threads)
      : real_device_(std::move(device)),
        device_(std::make_unique<GraphDevice>(real_device_.get())),
        // Two blocks of the decode kernels run on a multiprocessor at once.
        workers_(2 * device_->multiprocessors()),
        packers_(threads),
        upload_(device_.get()),
        cos_(device_.get()),
        sin_(device_.get()),
        partial_sums_(device_.get()),
        partial_weights_(device_.get()),
        counters_(device_.get()),
        split_x_(device_.get()),
        sample_upload_(device_.get()),
        sample_scratch_(device_.get()),
        sample_results_(device_.get()) {}

  std::string name() const override {
    return absl::StrCat("cuda (", device_->name(), ")");
  }
  absl::Status status() const override { return device_->status(); }
  absl::Status CheckHeads(int head_dim, KvDtype dtype) const override {
    return cuda::CheckHeads(head_dim, dtype);
  }

  bool walks_plans() const override { return false; }
  bool runs_ahead() const override { return true; }
  StepGraphs step_graphs() const override { return device_->step_graphs(); }

  int64_t FreeBytes() const override { return device_->FreeBytes(); }
  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(int64_t bytes) override {
    return DeviceBuffer::Create(device_.get(), bytes);
  }
  absl::StatusOr<std::unique_ptr<Matrix>> Pack(const MatrixSource& source,
                                               Precision precision) override;
  // These may come from other threads, and never while launches of their own
  // are held back: StepInputs::uninterrupted.
  void CopyToDevice(const void* host, int64_t bytes, void* device) override {
    real_device_->Synchronize();
    real_device_->Fill(host, bytes, device);
  }
  void CopyToHost(const void* device, int64_t bytes, void* host) override {
    real_device_->Download(device, bytes, host);
    real_device_->Synchronize();
  }

  absl::Status ReserveSteps(const StepLimits& limits) override;
  void BeginStep(const StepInputs& inputs, const Rope& rope) override;
  void EndStep() override { device_->EndStep(); }
  void Embed(const Matrix& table, float* out) override;
  void RmsNorm(const float* x, const float* weight, float epsilon, int64_t rows,
               int64_t cols, float* out) override;
  void MatMul(const Matrix& w, const float* x, int64_t rows, const float* bias,
              MatMulMode mode, float* out) override;
  void RotateAndStoreKv(const AttentionLayer& layer, float* qkv,
                        void* arena) override;
  void Attention(const AttentionLayer& layer, const float* qkv,
                 const void* arena, float* out) override;
  void GateHeads(const AttentionLayer& layer, float* context) override;
  void SwiGlu(const float* x, int64_t rows, int64_t width, float* out) override;
  void GatherRows(const float* x, int64_t cols, float* out) override;
  std::vector<SampleResult> Sample(const float* logits, int64_t vocab,
                                   absl::Span<const SampleRow> rows) override;

 private:
  int32_t rows() const { return static_cast<int32_t>(inputs_.tokens.size()); }
  const LayerTables& TablesOf(const AttentionLayer& layer) const {
    return tables_.known.front()
        .layers[layer_tables_[static_cast<size_t>(layer.layer)]];
  }
  // Whether the step only decodes, with nothing of the host's in between.
  bool IsGraphStep() const;
  void AddGates();
  void GrowScratch(int64_t half, int head_dim);
  void IndexLayers();
  void MakeRopeTable(const Rope& rope, int64_t frequencies);
  void DrawOnDevice(const float* logits, int64_t vocab);

  const std::unique_ptr<Device> real_device_;
  const std::unique_ptr<GraphDevice> device_;
  const int32_t workers_;
  ThreadPool packers_;

  // The step.
  StepInputs inputs_;
  StepTables tables_;
  StepUpload upload_;
  std::vector<size_t> layer_tables_;  // [AttentionLayer::layer]
  int64_t tokens_ = 0;                // places in upload_
  int64_t positions_ = 0;
  int64_t logits_rows_ = 0;
  int64_t block_offsets_ = 0;
  int64_t row_gates_ = 0;
  int64_t gates_ = 0;

  GrowingMemory cos_;  // [rows, head_dim / 2]
  GrowingMemory sin_;
  GrowingMemory partial_sums_;
  GrowingMemory partial_weights_;
  GrowingMemory counters_;  // zero between launches
  GrowingMemory split_x_;   // the input of a product

  // Sampling: rows that the device draws, and what the others need.
  SampleBatch batch_;
  std::vector<size_t> drawn_;  // [batch_.rows] -> of the call
  StepUpload sample_upload_;
  GrowingMemory sample_scratch_;
  GrowingMemory sample_results_;
  std::vector<DeviceSampleResult> device_results_;
  SampleScratch scratch_;
  std::vector<float> host_logits_;
};

absl::StatusOr<std::unique_ptr<Matrix>> CudaBackend::Pack(
    const MatrixSource& source, Precision precision) {
  const PackedLayout layout = LayoutFor(source, precision);
  absl::StatusOr<std::unique_ptr<DeviceBuffer>> storage =
      DeviceBuffer::Create(device_.get(), layout.bytes());
  if (!storage.ok()) return storage.status();
  const int64_t at_once =
      std::max<int64_t>(kPackBytes / layout.panel_bytes(), 1);
  std::vector<std::byte> host;
  for (int64_t first = 0; first < layout.panels(); first += at_once) {
    const int64_t count = std::min(at_once, layout.panels() - first);
    const int64_t bytes = count * layout.panel_bytes();
    host.resize(static_cast<size_t>(bytes));
    packers_.Run(count, [&](int64_t panel, int) {
      PackPanels(source, layout, first + panel, 1,
                 host.data() + panel * layout.panel_bytes());
    });
    device_->Fill(host.data(), bytes,
                  static_cast<std::byte*>((*storage)->data()) +
                      first * layout.panel_bytes());
  }
  return std::make_unique<CudaMatrix>(layout, *std::move(storage));
}

absl::Status CudaBackend::ReserveSteps(const StepLimits& limits) {
  const int64_t head_dim =
      limits.layers.empty() ? 0 : limits.layers.front().head_dim;
  const BalancedPlanBounds most = BoundStepTables(limits, workers_);
  const auto product_rows =
      static_cast<int32_t>(std::min(limits.rows, kMaxProductRows));
  int64_t split_bytes = 0;
  for (const Matrix* const matrix : limits.matrices) {
    const MatMulPlan plan = PlanMatMul(Packed(*matrix).layout(), product_rows,
                                       device_->multiprocessors());
    split_bytes = std::max(split_bytes, plan.split_bytes);
  }
  const int64_t counters_before = counters_.bytes();
  absl::Status status;
  status.Update(cos_.Reserve(limits.rows * head_dim / 2 * kFloatBytes));
  status.Update(sin_.Reserve(limits.rows * head_dim / 2 * kFloatBytes));
  status.Update(partial_sums_.Reserve(most.partials * head_dim * kFloatBytes));
  status.Update(partial_weights_.Reserve(most.partials * 2 * kFloatBytes));
  status.Update(counters_.Reserve(most.merges * kCounterBytes));
  status.Update(split_x_.Reserve(split_bytes));
  status.Update(
      sample_scratch_.Reserve(limits.logits_rows * limits.vocab * kFloatBytes));
  status.Update(sample_results_.Reserve(limits.logits_rows * kResultBytes));
  if (counters_.bytes() != counters_before) {
    device_->Zero(counters_.data<void>(), counters_.bytes());
  }
  return status;
}

void CudaBackend::BeginStep(const StepInputs& inputs, const Rope& rope) {
  const Range range(device_.get(), "begin step");
  inputs_ = inputs;
  device_->Synchronize();
  upload_.Clear();
  tokens_ = upload_.Add(inputs.tokens);
  positions_ = upload_.Add(inputs.positions);
  logits_rows_ = upload_.Add(inputs.logits_rows);
  const int64_t frequencies = upload_.Add(rope.inverse_frequency);
  if (!inputs.head_gates.empty()) AddGates();
  MakeStepTables(inputs, workers_, &upload_, &tables_);
  block_offsets_ = upload_.Add(inputs.block_offsets);
  IndexLayers();
  GrowScratch(static_cast<int64_t>(rope.inverse_frequency.size()),
              inputs.layers.empty() ? 0 : inputs.layers.front().head_dim);
  upload_.Send();
  device_->BeginStep(IsGraphStep());
  MakeRopeTable(rope, frequencies);
}

bool CudaBackend::IsGraphStep() const {
  return inputs_.uninterrupted && inputs_.tokens.size() <= kMaxGraphRows &&
         inputs_.tokens.size() == inputs_.sequences.size();
}

void CudaBackend::AddGates() {
  std::vector<int64_t> row_gates;
  for (const StepSequence& sequence : inputs_.sequences) {
    row_gates.insert(row_gates.end(), static_cast<size_t>(sequence.num_rows),
                     sequence.gates_begin);
  }
  row_gates_ = upload_.Add(row_gates);
  gates_ = upload_.Add(inputs_.head_gates);
}

void CudaBackend::IndexLayers() {
  for (size_t i = 0; i < inputs_.layers.size(); ++i) {
    const auto layer = static_cast<size_t>(inputs_.layers[i].layer);
    if (layer_tables_.size() <= layer) layer_tables_.resize(layer + 1);
    layer_tables_[layer] = i;
  }
}

// The step's part of what ReserveSteps takes; products and drawing take theirs.
void CudaBackend::GrowScratch(int64_t half, int head_dim) {
  cos_.Grow(rows() * half * kFloatBytes);
  sin_.Grow(rows() * half * kFloatBytes);
  partial_sums_.Grow(tables_.num_partials * head_dim * kFloatBytes);
  partial_weights_.Grow(tables_.num_partials * 2 * kFloatBytes);
  if (counters_.Grow(tables_.num_counters * kCounterBytes)) {
    device_->Zero(counters_.data<void>(), counters_.bytes());
  }
}

void CudaBackend::MakeRopeTable(const Rope& rope, int64_t frequencies) {
  const RopeTableParams params{
      .positions = upload_.At<int32_t>(positions_),
      .inverse_frequency = upload_.At<float>(frequencies),
      .cos = cos_.data<float>(),
      .sin = sin_.data<float>(),
      .rows = rows(),
      .half = static_cast<int32_t>(rope.inverse_frequency.size()),
      .scale = rope.scale};
  device_->Launch(FindRopeTableKernel(), rows(), params);
}

void CudaBackend::Embed(const Matrix& table, float* out) {
  const Range range(device_.get(), "embed");
  const EmbedParams params{.weights = Packed(table).weights(),
                           .layout = Packed(table).layout(),
                           .tokens = upload_.At<int32_t>(tokens_),
                           .out = out,
                           .rows = rows()};
  device_->Launch(FindEmbedKernel(), rows(), params);
}

void CudaBackend::RmsNorm(const float* x, const float* weight, float epsilon,
                          int64_t rows, int64_t cols, float* out) {
  const Range range(device_.get(), "norm");
  const RmsNormParams params{.x = x,
                             .weight = weight,
                             .out = out,
                             .rows = static_cast<int32_t>(rows),
                             .cols = static_cast<int32_t>(cols),
                             .epsilon = epsilon};
  device_->Launch(FindRmsNormKernel(), rows, params);
}

void CudaBackend::MatMul(const Matrix& w, const float* x, int64_t rows,
                         const float* bias, MatMulMode mode, float* out) {
  const Range range(device_.get(), "matmul");
  const PackedLayout& layout = Packed(w).layout();
  for (int64_t first = 0; first < rows; first += kMaxProductRows) {
    const auto count =
        static_cast<int32_t>(std::min(rows - first, kMaxProductRows));
    const MatMulPlan plan =
        PlanMatMul(layout, count, device_->multiprocessors());
    split_x_.Grow(plan.split_bytes);
    const MatMulParams params{.weights = Packed(w).weights(),
                              .layout = layout,
                              .x = x + first * layout.cols,
                              .bias = bias,
                              .out = out + first * layout.rows,
                              .rows = count,
                              .add = mode == MatMulMode::kAdd,
                              .split = split_x_.data<std::byte>()};
    device_->Launch(plan.split.kernel, plan.split.grid, params);
    device_->Launch(plan.product.kernel, plan.product.grid, params);
  }
}

void CudaBackend::RotateAndStoreKv(const AttentionLayer& layer, float* qkv,
                                   void* arena) {
  const Range range(device_.get(), "write KV");
  const int64_t heads = layer.query_heads + 2 * layer.kv_heads;
  const int64_t half = layer.head_dim / 2;
  const LayerTables& tables = TablesOf(layer);
  for (const RowRun& run : tables_.runs) {
    const int64_t first = run.first_row;
    const KvWriteParams params{
        .qkv = qkv + first * heads * layer.head_dim,
        .rows = run.num_rows,
        .queries = layer.query_heads,
        .kv_heads = layer.kv_heads,
        .head_dim = layer.head_dim,
        .cos = cos_.data<float>() + first * half,
        .sin = sin_.data<float>() + first * half,
        .q_norm = layer.q_norm,
        .k_norm = layer.k_norm,
        .norm_epsilon = layer.norm_epsilon,
        .arena = static_cast<std::byte*>(arena),
        .positions = upload_.At<int32_t>(positions_) + first,
        .row_blocks = upload_.At<int64_t>(run.row_blocks),
        .heads = upload_.At<KvWriteHead>(
            tables_.layer_tables +
            tables.write_heads[static_cast<size_t>(run.variant)])};
    device_->Launch(FindKvWriteKernel(), KvWriteGrid(params), params);
  }
}

void CudaBackend::Attention(const AttentionLayer& layer, const float* qkv,
                            const void* arena, float* out) {
  const Range range(device_.get(), "attention");
  const LayerTables& tables = TablesOf(layer);
  const std::vector<AttentionLaunch>& launches = tables_.launches[tables.shape];
  const int64_t out_stride = int64_t{layer.query_heads} * layer.head_dim;
  if (!tables.covers_out) {
    device_->Zero(out, rows() * out_stride * kFloatBytes);
  }
  for (size_t i = 0; i < launches.size(); ++i) {
    const AttentionLaunch& launch = launches[i];
    AttentionParams params{
        .q = qkv,
        .out = out,
        .q_stride =
            int64_t{layer.query_heads + 2 * layer.kv_heads} * layer.head_dim,
        .out_stride = out_stride,
        .token_scales = IsQuantized(launch.dtype),
        .arena = static_cast<const std::byte*>(arena),
        .blocks = upload_.At<int64_t>(block_offsets_),
        .heads =
            upload_.At<AttentionHead>(tables_.layer_tables + tables.heads[i]),
        .worker_begin = upload_.At<int32_t>(launch.worker_begin),
        .partial_sums = partial_sums_.data<float>(),
        .partial_weights = partial_weights_.data<float>(),
        .counters = counters_.data<int32_t>(),
        .score_scale = std::numbers::log2e_v<float> /
                       std::sqrt(static_cast<float>(layer.head_dim))};
    if (launch.decode.kernel != nullptr) {
      params.items = upload_.At<AttentionItem>(launch.decode_items);
      device_->Launch(KernelOf<AttentionParams>(launch.decode), workers_,
                      params);
    }
    if (launch.prefill.kernel != nullptr) {
      params.items = upload_.At<AttentionItem>(launch.tile_items);
      device_->Launch(KernelOf<AttentionParams>(launch.prefill), launch.tiles,
                      params);
    }
  }
}

void CudaBackend::GateHeads(const AttentionLayer& layer, float* context) {
  const GateHeadsParams params{.context = context,
                               .row_gates = upload_.At<int64_t>(row_gates_),
                               .gates = upload_.At<float>(gates_),
                               .first_gate = layer.query_heads_below,
                               .rows = rows(),
                               .query_heads = layer.query_heads,
                               .head_dim = layer.head_dim};
  device_->Launch(FindGateHeadsKernel(), rows(), params);
}

void CudaBackend::SwiGlu(const float* x, int64_t rows, int64_t width,
                         float* out) {
  const Range range(device_.get(), "swiglu");
  const SwiGluParams params{.x = x,
                            .out = out,
                            .rows = static_cast<int32_t>(rows),
                            .width = static_cast<int32_t>(width)};
  device_->Launch(FindSwiGluKernel(), SwiGluGrid(params), params);
}

void CudaBackend::GatherRows(const float* x, int64_t cols, float* out) {
  const GatherRowsParams params{
      .x = x,
      .indices = upload_.At<int32_t>(logits_rows_),
      .out = out,
      .rows = static_cast<int32_t>(inputs_.logits_rows.size()),
      .cols = static_cast<int32_t>(cols)};
  device_->Launch(FindGatherRowsKernel(), params.rows, params);
}

std::vector<SampleResult> CudaBackend::Sample(
    const float* logits, int64_t vocab, absl::Span<const SampleRow> rows) {
  const Range range(device_.get(), "sample");
  std::vector<SampleResult> results(rows.size());
  Clear(&batch_);
  drawn_.clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!IsDrawnOnDevice(rows[i])) continue;
    AddRow(rows[i], vocab, &batch_);
    drawn_.push_back(i);
  }
  if (!drawn_.empty()) DrawOnDevice(logits, vocab);
  host_logits_.resize(static_cast<size_t>(vocab));
  for (size_t i = 0; i < rows.size(); ++i) {
    if (IsDrawnOnDevice(rows[i])) continue;
    CopyToHost(logits + rows[i].logits_row * vocab, vocab * kFloatBytes,
               host_logits_.data());
    results[i] = SampleOne(host_logits_, rows[i], &scratch_);
  }
  device_->Synchronize();
  for (size_t i = 0; i < drawn_.size(); ++i) {
    SampleResult& result = results[drawn_[i]];
    result.token = device_results_[i].token;
    result.logprob = device_results_[i].logprob;
    result.finite = device_results_[i].finite != 0;
  }
  return results;
}

// Draws batch_ into device_results_, which are there after Synchronize.
void CudaBackend::DrawOnDevice(const float* logits, int64_t vocab) {
  const auto count = static_cast<int64_t>(drawn_.size());
  // Not part of the step's upload: this is made while the device computes the
  // layers. The last Sample has waited for its own.
  sample_upload_.Clear();
  const int64_t rows = sample_upload_.Add(batch_.rows);
  const int64_t uses = sample_upload_.Add(batch_.uses);
  const int64_t biases = sample_upload_.Add(batch_.biases);
  const int64_t allowed = sample_upload_.Add(batch_.allowed);
  const int64_t banned = sample_upload_.Add(batch_.banned);
  sample_upload_.Send();
  sample_scratch_.Grow(count * vocab * kFloatBytes);
  const int64_t result_bytes = count * kResultBytes;
  sample_results_.Grow(result_bytes);
  const SampleParams params{
      .logits = logits,
      .rows = sample_upload_.At<DeviceSampleRow>(rows),
      .uses = sample_upload_.At<TokenUse>(uses),
      .biases = sample_upload_.At<TokenBias>(biases),
      .allowed = sample_upload_.At<int32_t>(allowed),
      .banned = sample_upload_.At<int32_t>(banned),
      .scratch = sample_scratch_.data<float>(),
      .results = sample_results_.data<DeviceSampleResult>(),
      .vocab = static_cast<int32_t>(vocab)};
  device_->Launch(FindSampleKernel(), count, params);
  device_results_.resize(drawn_.size());
  device_->Download(sample_results_.data<void>(), result_bytes,
                    device_results_.data());
}

}  // namespace

std::unique_ptr<Backend> CreateCudaBackend(std::unique_ptr<Device> device,
                                           int threads) {
  return std::make_unique<CudaBackend>(
      std::move(device), threads > 0 ? threads : AvailableCores());
}

}  // namespace headcount::cuda
