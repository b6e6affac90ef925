#include "model/decoder.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/checked.h"
#include "model/layer_inputs.h"
#include "model/rope.h"

namespace headcount {
namespace {

float* FloatsOf(const std::unique_ptr<Buffer>& buffer) {
  return buffer == nullptr ? nullptr : static_cast<float*>(buffer->data());
}

// Whether a sequence of the step does.
bool RunsHeads(const AttentionLayer& layer) {
  return std::any_of(layer.variants.begin(), layer.variants.end(),
                     [](const VariantLayer& variant) {
                       return variant.heads->has_attention();
                     });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Decoder>> Decoder::Create(
    const DecoderParts& parts, int32_t max_rows, int32_t max_logits_rows) {
  CHECK(max_rows > 0 && max_logits_rows > 0);
  // A row of logits belongs to a token of the step.
  std::unique_ptr<Decoder> decoder(
      new Decoder(parts, max_rows, std::min(max_logits_rows, max_rows)));
  absl::Status status = decoder->AllocateWorkspaces();
  if (!status.ok()) return status;
  return decoder;
}

Decoder::Decoder(const DecoderParts& parts, int32_t max_rows,
                 int32_t max_logits_rows)
    : parts_(parts),
      max_rows_(max_rows),
      max_logits_rows_(max_logits_rows),
      rope_(MakeRope(parts.config->rope, parts.config->head_dim)) {
  int64_t query_heads = 0;
  for (const LayerHeads& heads : parts.whole->layout().layers()) {
    query_heads_below_.push_back(query_heads);
    query_heads += static_cast<int64_t>(heads.query_heads.size());
  }
}

absl::Status Decoder::AllocateWorkspaces() {
  const ModelConfig& config = *parts_.config;
  int64_t narrow = *std::max_element(config.ffn.begin(), config.ffn.end());
  int64_t wide = 2 * narrow;
  bool constants = false;
  for (const LayerWeights& layer : parts_.weights->layers) {
    constants = constants || layer.constant_out != nullptr;
    if (layer.qkv == nullptr) continue;
    wide = std::max(wide, layer.qkv->rows());
    narrow = std::max(narrow, layer.attention_out->cols());
  }
  struct Workspace {
    std::unique_ptr<Buffer>* buffer;
    int64_t rows;
    int64_t cols;
  };
  const Workspace workspaces[] = {
      {&residual_, max_rows_, config.hidden},
      {&normed_, max_rows_, config.hidden},
      {&wide_, max_rows_, wide},
      {&narrow_, max_rows_, narrow},
      {&logits_, max_logits_rows_, config.vocab},
      {&ones_, constants ? max_rows_ : 0, 1},
  };
  for (const Workspace& workspace : workspaces) {
    if (workspace.rows == 0) continue;
    absl::StatusOr<std::unique_ptr<Buffer>> buffer =
        Floats(workspace.rows, workspace.cols);
    if (!buffer.ok()) return buffer.status();
    workspace_bytes_ += (*buffer)->bytes();
    *workspace.buffer = *std::move(buffer);
  }
  if (constants) {
    const std::vector<float> ones(static_cast<size_t>(max_rows_), 1.0f);
    parts_.backend->CopyToDevice(ones.data(), ones_->bytes(), ones_->data());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Buffer>> Decoder::Floats(int64_t rows,
                                                        int64_t cols) {
  std::optional<int64_t> bytes = CheckedMul(rows, cols);
  if (bytes) bytes = CheckedMul<int64_t>(*bytes, sizeof(float));
  if (!bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a workspace of ", rows, " x ", cols,
        " floats is too large; lower the number of tokens in a step"));
  }
  return parts_.backend->Allocate(*bytes);
}

Logits Decoder::Forward(const Batch& batch, void* arena) {
  const ModelConfig& config = *parts_.config;
  const Weights& weights = *parts_.weights;
  Backend& backend = *parts_.backend;
  const Matrix& output =
      weights.output == nullptr ? *weights.embedding : *weights.output;
  const StepInputs inputs = BuildStep(batch);
  const auto logits_rows = static_cast<int64_t>(logits_row_indices_.size());
  Logits logits{
      .data = FloatsOf(logits_), .rows = logits_rows, .vocab = config.vocab};
  if (tokens_.empty()) return logits;

  backend.BeginStep(inputs, rope_);
  RunLayers(batch, arena);
  // Only the rows asked for go through the final norm and the output matrix.
  if (logits_rows > 0) {
    backend.GatherRows(FloatsOf(residual_), config.hidden, FloatsOf(normed_));
    backend.RmsNorm(FloatsOf(normed_), FloatsOf(weights.final_norm),
                    static_cast<float>(config.rms_epsilon), logits_rows,
                    config.hidden, FloatsOf(normed_));
    backend.MatMul(output, FloatsOf(normed_), logits_rows, nullptr,
                   Backend::MatMulMode::kStore, FloatsOf(logits_));
  }
  backend.EndStep();
  return logits;
}

void Decoder::RunLayers(const Batch& batch, void* arena) {
  const Weights& weights = *parts_.weights;
  const auto rows = static_cast<int64_t>(tokens_.size());
  const size_t first_layer = FirstLayer(batch);
  if (first_layer == 0) {
    parts_.backend->Embed(*weights.embedding, FloatsOf(residual_));
  }
  for (size_t layer = first_layer; layer < weights.layers.size(); ++layer) {
    ExchangeInputs(batch, layer, first_layer);
    RunAttention(layer, rows, arena);
    RunFeedForward(layer, rows);
  }
  ExchangeInputs(batch, weights.layers.size(), first_layer);
}

size_t Decoder::FirstLayer(const Batch& batch) const {
  size_t first = parts_.weights->layers.size();
  for (const BatchSequence& sequence : batch.sequences) {
    first = std::min(first, sequence.inputs == nullptr
                                ? 0
                                : static_cast<size_t>(sequence.first_layer));
  }
  return first;
}

void Decoder::ExchangeInputs(const Batch& batch, size_t layer,
                             size_t first_layer) {
  if (!exchanges_) return;
  const auto hidden = static_cast<size_t>(parts_.config->hidden);
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const BatchSequence& sequence = batch.sequences[s];
    const auto first = static_cast<size_t>(sequence.past);
    const size_t count = sequence.tokens.size();
    const auto bytes = static_cast<int64_t>(count * hidden * sizeof(float));
    float* const rows = FloatsOf(residual_) +
                        static_cast<size_t>(sequences_[s].first_row) * hidden;
    // A step can begin before some sequence's first layer. What it computes of
    // that until there is of no use, but has to be of finite numbers: they get
    // into pages that others have later.
    if (sequence.inputs != nullptr &&
        (layer == first_layer ||
         layer == static_cast<size_t>(sequence.first_layer))) {
      parts_.backend->CopyToDevice(
          sequence.inputs->Rows(layer, first, count).data(), bytes, rows);
    }
    // A run that is taken up itself keeps what is its own.
    if (sequence.kept_inputs != nullptr &&
        (sequence.inputs == nullptr ||
         layer >= static_cast<size_t>(sequence.first_layer))) {
      parts_.backend->CopyToHost(
          rows, bytes, sequence.kept_inputs->Rows(layer, first, count).data());
    }
  }
}

AttentionLayer Decoder::LayerOf(size_t layer,
                                absl::Span<const VariantLayer> variants) const {
  const LayerWeights& weights = parts_.weights->layers[layer];
  const LayerHeads& heads = parts_.whole->layout().layers()[layer];
  return {.query_heads = static_cast<int>(heads.query_heads.size()),
          .kv_heads = static_cast<int>(heads.kv_heads.size()),
          .variants = variants,
          .layer = static_cast<int>(layer),
          .layer_class = layer_class_[layer],
          .query_heads_below = query_heads_below_[layer],
          .head_dim = parts_.config->head_dim,
          .q_norm = FloatsOf(weights.q_norm),
          .k_norm = FloatsOf(weights.k_norm),
          .norm_epsilon = static_cast<float>(parts_.config->rms_epsilon)};
}

void Decoder::RunAttention(size_t layer, int64_t rows, void* arena) {
  const ModelConfig& config = *parts_.config;
  const LayerWeights& weights = parts_.weights->layers[layer];
  Backend& backend = *parts_.backend;
  if (weights.qkv == nullptr) {
    if (weights.constant_out == nullptr) return;
    backend.MatMul(*weights.constant_out, FloatsOf(ones_), rows, nullptr,
                   Backend::MatMulMode::kAdd, FloatsOf(residual_));
    return;
  }
  const AttentionLayer& attention = layers_[layer_index_[layer]];
  // No sequence of the step runs a head of it: all that it adds are zeros.
  if (!RunsHeads(attention) && weights.attention_out_bias == nullptr) return;
  float* const qkv = FloatsOf(wide_);
  float* const attended = FloatsOf(narrow_);
  backend.RmsNorm(FloatsOf(residual_), FloatsOf(weights.attention_norm),
                  static_cast<float>(config.rms_epsilon), rows, config.hidden,
                  FloatsOf(normed_));
  backend.MatMul(*weights.qkv, FloatsOf(normed_), rows,
                 FloatsOf(weights.qkv_bias), Backend::MatMulMode::kStore, qkv);
  backend.RotateAndStoreKv(attention, qkv, arena);
  backend.Attention(attention, qkv, arena, attended);
  if (!head_gates_.empty()) backend.GateHeads(attention, attended);
  if (!counted_.empty()) CountHeads(layer, rows);
  backend.MatMul(*weights.attention_out, attended, rows,
                 FloatsOf(weights.attention_out_bias),
                 Backend::MatMulMode::kAdd, FloatsOf(residual_));
}

void Decoder::RunFeedForward(size_t layer, int64_t rows) {
  const ModelConfig& config = *parts_.config;
  const LayerWeights& weights = parts_.weights->layers[layer];
  if (weights.gate_up == nullptr) return;
  Backend& backend = *parts_.backend;
  backend.RmsNorm(FloatsOf(residual_), FloatsOf(weights.ffn_norm),
                  static_cast<float>(config.rms_epsilon), rows, config.hidden,
                  FloatsOf(normed_));
  backend.MatMul(*weights.gate_up, FloatsOf(normed_), rows,
                 FloatsOf(weights.gate_up_bias), Backend::MatMulMode::kStore,
                 FloatsOf(wide_));
  backend.SwiGlu(FloatsOf(wide_), rows, config.ffn[layer], FloatsOf(narrow_));
  backend.MatMul(*weights.down, FloatsOf(narrow_), rows,
                 FloatsOf(weights.down_bias), Backend::MatMulMode::kAdd,
                 FloatsOf(residual_));
}

}  // namespace headcount
