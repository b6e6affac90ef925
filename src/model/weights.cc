#include "model/weights.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "model/find_weight.h"
#include "model/head_rows.h"
#include "model/stored_heads.h"
#include "model/weight_names.h"

namespace headcount {
namespace {

// Where rounding costs most: softmax raises the errors of queries and keys to
// an exponent, and the input of `down`, a product of two, has the most
// outliers. Together they halve how far 8-bit inputs move the logits, for two
// fifths more arithmetic (docs/performance.md).
constexpr bool kWideInput = true;

constexpr char kWeight[] = ".weight";
constexpr char kBias[] = ".bias";

// A tensor and the kept runs of its first dimension.
struct KeptRows {
  const TensorView* tensor = nullptr;
  std::vector<Run> runs;
};

// The first error sticks; after it nothing more is loaded.
class WeightLoader {
 public:
  WeightLoader(const ModelConfig& config, const HeadLayout& layout,
               const WeightSources& sources, Precision precision,
               Backend* backend)
      : config_(config),
        names_(WeightNamesOf(config.naming)),
        layout_(layout),
        checkpoint_(*sources.checkpoint),
        repair_(sources.repair),
        progress_(sources.progress),
        precision_(precision),
        backend_(backend) {}

  // Once only.
  absl::StatusOr<Weights> Load();

 private:
  // What a checkpoint holds beside what the config implies is done with last.
  void Tell(int64_t done) const {
    if (progress_) progress_(done, checkpoint_.tensor_bytes());
  }

  void LoadAttention(size_t layer, LayerWeights* weights);
  void LoadBiasAlone(size_t layer, LayerWeights* weights);
  void LoadAttentionOut(size_t layer, int64_t q, const std::vector<Run>& q_runs,
                        LayerWeights* weights);
  void LoadFeedForward(int64_t ffn, LayerWeights* weights);

  int64_t Width(const std::vector<int>& heads) const {
    return static_cast<int64_t>(heads.size()) * layout_.head_dim();
  }

  // The weight or bias of that name (after prefix_), all of it. Null after an
  // error.
  KeptRows Weight(const char* name, const std::vector<int64_t>& shape) {
    return Kept(name, kWeight, shape, {{0, shape[0]}});
  }
  KeptRows Bias(const char* name, int64_t size) {
    return Kept(name, kBias, {size}, {{0, size}});
  }
  // The same, but only `runs` of its rows; all of it counts as in the file.
  KeptRows Kept(const char* name, const char* suffix,
                const std::vector<int64_t>& shape,
                const std::vector<Run>& runs);

  // Null after an error.
  std::unique_ptr<Matrix> Rows(const std::vector<KeptRows>& parts,
                               bool wide_input = false);
  std::unique_ptr<Matrix> Columns(const KeptRows& whole,
                                  const std::vector<Run>& columns);
  std::unique_ptr<Matrix> Column(const KeptRows& vector);
  std::unique_ptr<Matrix> Pack(const MatrixSource& source);
  std::unique_ptr<Buffer> Vector(const std::vector<KeptRows>& parts);

  const ModelConfig& config_;
  const WeightNames& names_;
  const HeadLayout& layout_;
  const Checkpoint& checkpoint_;
  const OutputRepair* const repair_;
  const std::function<void(int64_t, int64_t)> progress_;
  const Precision precision_;
  Backend* const backend_;

  Weights weights_;
  absl::Status status_;
  std::string prefix_;
  int64_t file_bytes_ = 0;  // of the tensors that the config implies
  int64_t read_bytes_ = 0;  // of those, read
};

absl::StatusOr<Weights> WeightLoader::Load() {
  const std::vector<int64_t> vocab_by_hidden = {config_.vocab, config_.hidden};
  weights_.embedding = Rows({Weight(names_.embedding, vocab_by_hidden)});
  Tell(file_bytes_);
  for (size_t layer = 0; layer < layout_.layers().size(); ++layer) {
    LayerWeights& weights = weights_.layers.emplace_back();
    prefix_ = absl::StrCat(names_.layers, layer, ".");
    LoadAttention(layer, &weights);
    LoadFeedForward(config_.ffn[layer], &weights);
    if (!status_.ok()) return status_;
    Tell(file_bytes_);
  }
  prefix_.clear();
  weights_.final_norm = Vector({Weight(names_.final_norm, {config_.hidden})});
  if (!config_.tied_output) {
    weights_.output = Rows({Weight(names_.output, vocab_by_hidden)});
  }
  if (!status_.ok()) return status_;
  weights_.pruned_bytes = file_bytes_ - read_bytes_;
  Tell(checkpoint_.tensor_bytes());
  return std::move(weights_);
}

void WeightLoader::LoadAttention(size_t layer, LayerWeights* weights) {
  const LayerHeads& heads = layout_.layers()[layer];
  const StoredHeads stored = StoredHeadsOf(config_, checkpoint_, layer);
  if (stored.query_heads.empty()) {
    LoadBiasAlone(layer, weights);
    return;
  }
  const int head_dim = layout_.head_dim();
  const int64_t hidden = config_.hidden;
  const int64_t q = Width(stored.query_heads);
  const int64_t kv = Width(stored.kv_heads);
  const auto [q_heads, kv_heads] = KeptIn(stored, heads);
  const std::vector<Run> v_rows = RunsOf(kv_heads, head_dim);
  const auto rotated_runs = config_.paired_rows ? PairedRunsOf : RunsOf;
  const std::vector<Run> q_rows = rotated_runs(q_heads, head_dim);
  const std::vector<Run> k_rows = rotated_runs(kv_heads, head_dim);

  // All are checked, and counted as pruned, even if nothing of them is kept.
  const KeptRows norm = Weight(names_.attention_norm, {hidden});
  const std::vector<KeptRows> qkv = {
      Kept(names_.query, kWeight, {q, hidden}, q_rows),
      Kept(names_.key, kWeight, {kv, hidden}, k_rows),
      Kept(names_.value, kWeight, {kv, hidden}, v_rows)};
  if (heads.has_attention()) {
    weights->attention_norm = Vector({norm});
    weights->qkv = Rows(qkv, kWideInput);
  }
  LoadAttentionOut(layer, q, RunsOf(q_heads, head_dim), weights);
  if (config_.qk_norm) {
    const KeptRows q_norm = Weight(names_.query_norm, {head_dim});
    const KeptRows k_norm = Weight(names_.key_norm, {head_dim});
    if (heads.has_attention()) {
      weights->q_norm = Vector({q_norm});
      weights->k_norm = Vector({k_norm});
    }
  }
  if (config_.qkv_bias) {
    const std::vector<KeptRows> bias = {
        Kept(names_.query, kBias, {q}, q_rows),
        Kept(names_.key, kBias, {kv}, k_rows),
        Kept(names_.value, kBias, {kv}, v_rows)};
    if (heads.has_attention()) weights->qkv_bias = Vector(bias);
  }
}

// Of a layer whose heads the file does not hold: the bias of the output
// projection is all that may be there of its attention.
void WeightLoader::LoadBiasAlone(size_t layer, LayerWeights* weights) {
  const TensorView* const repaired =
      repair_ == nullptr ? nullptr : repair_->bias(layer);
  if (repaired != nullptr) {
    const int64_t read = read_bytes_;  // of the file
    weights->constant_out = Column({repaired, {}});
    read_bytes_ = read;
    return;
  }
  if (!config_.attention_out_bias ||
      checkpoint_.Find(absl::StrCat(prefix_, names_.attention_out, kBias)) ==
          nullptr) {
    return;
  }
  weights->constant_out = Column(Bias(names_.attention_out, config_.hidden));
}

// The output projection, or what repairs it. q: columns that the file has.
void WeightLoader::LoadAttentionOut(size_t layer, int64_t q,
                                    const std::vector<Run>& q_runs,
                                    LayerWeights* weights) {
  const LayerHeads& heads = layout_.layers()[layer];
  const KeptRows out = Weight(names_.attention_out, {config_.hidden, q});
  KeptRows bias;
  if (config_.attention_out_bias) {
    bias = Bias(names_.attention_out, config_.hidden);
  }
  if (!status_.ok()) return;
  int64_t read = read_bytes_;  // of the file, whatever stands in for it
  for (const Run& run : q_runs) {
    read += ElementBytes(out.tensor->dtype, config_.hidden * run.count);
  }
  if (bias.tensor != nullptr) {
    read += ElementBytes(bias.tensor->dtype, config_.hidden);
  }

  const TensorView* const new_out =
      repair_ == nullptr ? nullptr : repair_->weight(layer);
  const TensorView* const new_bias =
      repair_ == nullptr ? nullptr : repair_->bias(layer);
  if (new_bias != nullptr) bias = {new_bias, {{0, config_.hidden}}};
  if (heads.has_attention()) {
    weights->attention_out =
        new_out == nullptr ? Columns(out, q_runs)
                           : Columns({new_out, {}}, {{0, new_out->shape[1]}});
  }
  if (bias.tensor != nullptr && heads.has_attention()) {
    weights->attention_out_bias = Vector({bias});
  } else if (bias.tensor != nullptr) {
    weights->constant_out = Column(bias);
  }
  read_bytes_ = read;
}

void WeightLoader::LoadFeedForward(int64_t ffn, LayerWeights* weights) {
  if (ffn == 0) return;
  const int64_t hidden = config_.hidden;
  weights->ffn_norm = Vector({Weight(names_.ffn_norm, {hidden})});
  weights->gate_up = Rows(
      {Weight(names_.gate, {ffn, hidden}), Weight(names_.up, {ffn, hidden})});
  weights->down = Rows({Weight(names_.down, {hidden, ffn})}, kWideInput);
  if (!config_.mlp_bias) return;
  weights->gate_up_bias =
      Vector({Bias(names_.gate, ffn), Bias(names_.up, ffn)});
  weights->down_bias = Vector({Bias(names_.down, hidden)});
}

KeptRows WeightLoader::Kept(const char* name, const char* suffix,
                            const std::vector<int64_t>& shape,
                            const std::vector<Run>& runs) {
  if (!status_.ok()) return {};
  const absl::StatusOr<const TensorView*> found = FindWeight(
      checkpoint_, names_, absl::StrCat(prefix_, name, suffix), shape);
  if (!found.ok()) {
    status_ = found.status();
    return {};
  }
  const TensorView* const tensor = *found;
  file_bytes_ += static_cast<int64_t>(tensor->data.size());
  return {tensor, runs};
}

// The kept rows of all parts, one below the other.
std::unique_ptr<Matrix> WeightLoader::Rows(const std::vector<KeptRows>& parts,
                                           bool wide_input) {
  if (!status_.ok()) return nullptr;
  MatrixSource source;
  source.wide_input = wide_input;
  source.cols = parts.front().tensor->shape[1];
  for (const KeptRows& part : parts) {
    const TensorView& tensor = *part.tensor;
    for (const Run& run : part.runs) {
      source.pieces.push_back(
          {.data = tensor.data.data() +
                   ElementBytes(tensor.dtype, run.first * source.cols),
           .dtype = tensor.dtype,
           .stride = source.cols * run.step,
           .row = source.rows,
           .rows = run.count,
           .cols = source.cols});
      source.rows += run.count;
    }
  }
  return Pack(source);
}

// The kept columns of one tensor, side by side.
std::unique_ptr<Matrix> WeightLoader::Columns(const KeptRows& whole,
                                              const std::vector<Run>& columns) {
  if (!status_.ok()) return nullptr;
  const TensorView& tensor = *whole.tensor;
  MatrixSource source;
  source.rows = tensor.shape[0];
  for (const Run& run : columns) {
    source.pieces.push_back({.data = tensor.data.data(),
                             .dtype = tensor.dtype,
                             .stride = tensor.shape[1],
                             .first_col = run.first,
                             .col = source.cols,
                             .rows = source.rows,
                             .cols = run.count});
    source.cols += run.count;
  }
  return Pack(source);
}

// A vector as a matrix of one column.
std::unique_ptr<Matrix> WeightLoader::Column(const KeptRows& vector) {
  if (!status_.ok()) return nullptr;
  const int64_t rows = vector.tensor->shape[0];
  return Pack({.rows = rows,
               .cols = 1,
               .pieces = {{.data = vector.tensor->data.data(),
                           .dtype = vector.tensor->dtype,
                           .stride = 1,
                           .rows = rows,
                           .cols = 1}}});
}

std::unique_ptr<Matrix> WeightLoader::Pack(const MatrixSource& source) {
  absl::StatusOr<std::unique_ptr<Matrix>> matrix =
      backend_->Pack(source, precision_);
  if (!matrix.ok()) {
    status_ = matrix.status();
    return nullptr;
  }
  for (const MatrixPiece& piece : source.pieces) {
    // In proportion where columns cut through a block.
    const ElementBlock block = BlockOf(piece.dtype);
    read_bytes_ += piece.rows * piece.cols * block.bytes / block.elements;
  }
  weights_.resident_bytes += (*matrix)->bytes();
  return *std::move(matrix);
}

// The kept elements of all parts, one after the other, in float32.
std::unique_ptr<Buffer> WeightLoader::Vector(
    const std::vector<KeptRows>& parts) {
  if (!status_.ok()) return nullptr;
  std::vector<float> values;
  for (const KeptRows& part : parts) {
    for (const Run& run : part.runs) {
      const TensorView& tensor = *part.tensor;
      for (int64_t i = 0; i < run.count; ++i) {
        Dequantize(tensor.dtype, tensor.data.data(), run.first + i * run.step,
                   1, &values.emplace_back());
      }
      read_bytes_ += ElementBytes(tensor.dtype, run.count);
    }
  }
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
  absl::StatusOr<std::unique_ptr<Buffer>> buffer = backend_->Allocate(bytes);
  if (!buffer.ok()) {
    status_ = buffer.status();
    return nullptr;
  }
  backend_->CopyToDevice(values.data(), bytes, (*buffer)->data());
  weights_.resident_bytes += (*buffer)->bytes();
  return *std::move(buffer);
}

}  // namespace

absl::StatusOr<Weights> LoadWeights(const ModelConfig& config,
                                    const HeadLayout& layout,
                                    const WeightSources& sources,
                                    Precision precision, Backend* backend) {
  return WeightLoader(config, layout, sources, precision, backend).Load();
}

}  // namespace headcount
