#include "model/weights.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"

namespace headcount {
namespace {

// Neighbouring rows or columns of a tensor.
struct Run {
  int64_t first = 0;
  int64_t count = 0;
};

// The rows of `heads`, which rise, joined where heads are neighbours.
std::vector<Run> RunsOf(absl::Span<const int> heads, int head_dim) {
  std::vector<Run> runs;
  for (int head : heads) {
    const int64_t first = int64_t{head} * head_dim;
    if (!runs.empty() && runs.back().first + runs.back().count == first) {
      runs.back().count += head_dim;
    } else {
      runs.push_back({first, head_dim});
    }
  }
  return runs;
}

// A tensor and the kept runs of its first dimension.
struct KeptRows {
  const TensorView* tensor = nullptr;
  std::vector<Run> runs;
};

// The first error sticks; after it nothing more is loaded.
class WeightLoader {
 public:
  WeightLoader(const ModelConfig& config, const HeadLayout& layout,
               const Checkpoint& checkpoint, Precision precision,
               Backend* backend)
      : config_(config),
        layout_(layout),
        checkpoint_(checkpoint),
        precision_(precision),
        backend_(backend) {}

  // Once only.
  absl::StatusOr<Weights> Load();

 private:
  void LoadAttention(const LayerHeads& heads, LayerWeights* weights);
  void LoadFeedForward(LayerWeights* weights);

  // The tensor of that name (after prefix_), all of it. Null after an error.
  KeptRows Tensor(const char* name, const std::vector<int64_t>& shape);
  // The same, but only `runs` of its rows; all of it counts as in the file.
  KeptRows Kept(const char* name, const std::vector<int64_t>& shape,
                const std::vector<Run>& runs);

  // Null after an error.
  std::unique_ptr<Matrix> Rows(const std::vector<KeptRows>& parts);
  std::unique_ptr<Matrix> Columns(const KeptRows& whole,
                                  const std::vector<Run>& columns);
  std::unique_ptr<Matrix> Column(const KeptRows& vector);
  std::unique_ptr<Matrix> Pack(const MatrixSource& source);
  std::unique_ptr<Buffer> Vector(const std::vector<KeptRows>& parts);

  const ModelConfig& config_;
  const HeadLayout& layout_;
  const Checkpoint& checkpoint_;
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
  weights_.embedding =
      Rows({Tensor("model.embed_tokens.weight", vocab_by_hidden)});
  for (size_t layer = 0; layer < layout_.layers().size(); ++layer) {
    LayerWeights& weights = weights_.layers.emplace_back();
    prefix_ = absl::StrCat("model.layers.", layer, ".");
    LoadAttention(layout_.layers()[layer], &weights);
    LoadFeedForward(&weights);
    if (!status_.ok()) return status_;
  }
  prefix_.clear();
  weights_.final_norm = Vector({Tensor("model.norm.weight", {config_.hidden})});
  if (!config_.tied_output) {
    weights_.output = Rows({Tensor("lm_head.weight", vocab_by_hidden)});
  }
  if (!status_.ok()) return status_;
  weights_.pruned_bytes = file_bytes_ - read_bytes_;
  return std::move(weights_);
}

void WeightLoader::LoadAttention(const LayerHeads& heads,
                                 LayerWeights* weights) {
  if (heads.dense.query_heads == 0) return;
  const int64_t hidden = config_.hidden;
  const int64_t q = int64_t{heads.dense.query_heads} * layout_.head_dim();
  const int64_t kv = int64_t{heads.dense.kv_heads} * layout_.head_dim();
  std::vector<int> kv_heads;
  for (const KvHead& head : heads.kv_heads) kv_heads.push_back(head.index);
  const std::vector<Run> q_runs = RunsOf(heads.query_heads, layout_.head_dim());
  const std::vector<Run> kv_runs = RunsOf(kv_heads, layout_.head_dim());

  // All are checked, and counted as pruned, even if nothing of them is kept.
  const KeptRows norm = Tensor("input_layernorm.weight", {hidden});
  const std::vector<KeptRows> qkv = {
      Kept("self_attn.q_proj.weight", {q, hidden}, q_runs),
      Kept("self_attn.k_proj.weight", {kv, hidden}, kv_runs),
      Kept("self_attn.v_proj.weight", {kv, hidden}, kv_runs)};
  const KeptRows out = Tensor("self_attn.o_proj.weight", {hidden, q});
  if (heads.has_attention()) {
    weights->attention_norm = Vector({norm});
    weights->qkv = Rows(qkv);
    weights->attention_out = Columns(out, q_runs);
  }
  if (!config_.attention_bias) return;
  const std::vector<KeptRows> qkv_bias = {
      Kept("self_attn.q_proj.bias", {q}, q_runs),
      Kept("self_attn.k_proj.bias", {kv}, kv_runs),
      Kept("self_attn.v_proj.bias", {kv}, kv_runs)};
  const KeptRows out_bias = Tensor("self_attn.o_proj.bias", {hidden});
  if (heads.has_attention()) {
    weights->qkv_bias = Vector(qkv_bias);
    weights->attention_out_bias = Vector({out_bias});
  } else {
    weights->constant_out = Column(out_bias);
  }
}

void WeightLoader::LoadFeedForward(LayerWeights* weights) {
  const int64_t hidden = config_.hidden;
  const int64_t ffn = config_.ffn;
  weights->ffn_norm =
      Vector({Tensor("post_attention_layernorm.weight", {hidden})});
  weights->gate_up = Rows({Tensor("mlp.gate_proj.weight", {ffn, hidden}),
                           Tensor("mlp.up_proj.weight", {ffn, hidden})});
  weights->down = Rows({Tensor("mlp.down_proj.weight", {hidden, ffn})});
  if (!config_.mlp_bias) return;
  weights->gate_up_bias = Vector(
      {Tensor("mlp.gate_proj.bias", {ffn}), Tensor("mlp.up_proj.bias", {ffn})});
  weights->down_bias = Vector({Tensor("mlp.down_proj.bias", {hidden})});
}

KeptRows WeightLoader::Tensor(const char* name,
                              const std::vector<int64_t>& shape) {
  return Kept(name, shape, {{0, shape[0]}});
}

KeptRows WeightLoader::Kept(const char* name, const std::vector<int64_t>& shape,
                            const std::vector<Run>& runs) {
  if (!status_.ok()) return {};
  const std::string full_name = prefix_ + name;
  const TensorView* tensor = checkpoint_.Find(full_name);
  if (tensor == nullptr) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat("tensor ", full_name,
                     " is missing; config.json implies "
                     "one of shape [",
                     absl::StrJoin(shape, ", "), "]"));
    return {};
  }
  if (tensor->shape != shape) {
    status_ = absl::InvalidArgumentError(absl::StrCat(
        "tensor ", full_name, " has shape [",
        absl::StrJoin(tensor->shape, ", "), "], but config.json implies [",
        absl::StrJoin(shape, ", "), "]"));
    return {};
  }
  file_bytes_ += static_cast<int64_t>(tensor->data.size());
  return {tensor, runs};
}

// The kept rows of all parts, one below the other.
std::unique_ptr<Matrix> WeightLoader::Rows(const std::vector<KeptRows>& parts) {
  if (!status_.ok()) return nullptr;
  MatrixSource source;
  source.cols = parts.front().tensor->shape[1];
  for (const KeptRows& part : parts) {
    const TensorView& tensor = *part.tensor;
    for (const Run& run : part.runs) {
      source.pieces.push_back(
          {.data = tensor.data.data() +
                   ElementBytes(tensor.dtype, run.first * source.cols),
           .dtype = tensor.dtype,
           .stride = source.cols,
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
      values.resize(values.size() + static_cast<size_t>(run.count));
      Dequantize(tensor.dtype, tensor.data.data(), run.first, run.count,
                 values.data() + values.size() - run.count);
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
                                    const Checkpoint& checkpoint,
                                    Precision precision, Backend* backend) {
  return WeightLoader(config, layout, checkpoint, precision, backend).Load();
}

}  // namespace headcount
