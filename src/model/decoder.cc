#include "model/decoder.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/checked.h"
#include "model/rope.h"

namespace headcount {
namespace {

float* FloatsOf(const std::unique_ptr<Buffer>& buffer) {
  return buffer == nullptr ? nullptr : static_cast<float*>(buffer->data());
}

void CheckSequence(const BatchSequence& sequence, const ModelConfig& config,
                   absl::Span<const KvGroup> groups) {
  CHECK(!sequence.tokens.empty());
  CHECK(sequence.past >= 0) << "past " << sequence.past;
  const auto num_tokens = static_cast<int64_t>(sequence.tokens.size());
  CHECK(sequence.logits_rows >= 0 && sequence.logits_rows <= num_tokens)
      << sequence.logits_rows << " logits rows of " << num_tokens;
  CHECK(sequence.blocks.size() == groups.size())
      << sequence.blocks.size() << " block tables for " << groups.size();
  for (size_t group = 0; group < groups.size(); ++group) {
    const absl::Span<const int64_t> blocks = sequence.blocks[group];
    CHECK(static_cast<int64_t>(blocks.size()) * kBlockTokens >=
          sequence.past + num_tokens)
        << blocks.size() << " blocks for " << sequence.past << " + "
        << num_tokens << " tokens";
    const int64_t first = groups[group].retention.FirstSeen(sequence.past);
    CHECK(blocks[static_cast<size_t>(first / kBlockTokens)] >= 0)
        << "token " << first << " has been given back";
  }
  for (int32_t token : sequence.tokens) {
    CHECK(token >= 0 && token < config.vocab) << "token " << token;
  }
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
  const HeadLayout& layout = *parts.layout;
  plans_.resize(static_cast<size_t>(layout.num_layer_classes()));
  class_layer_.resize(plans_.size());
  int64_t query_heads = 0;
  for (size_t layer = 0; layer < layout.layers().size(); ++layer) {
    class_layer_[static_cast<size_t>(layout.layer_class()[layer])] = layer;
    query_heads_below_.push_back(query_heads);
    query_heads +=
        static_cast<int64_t>(layout.layers()[layer].query_heads.size());
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

StepInputs Decoder::BuildStep(const Batch& batch) {
  tokens_.clear();
  positions_.clear();
  block_offsets_.clear();
  head_gates_.clear();
  logits_row_indices_.clear();
  if (sequences_.size() < batch.sequences.size()) {
    sequences_.resize(batch.sequences.size());
  }
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const BatchSequence& from = batch.sequences[s];
    CheckSequence(from, *parts_.config, parts_.layout->groups());
    StepSequence& to = sequences_[s];
    to.first_row = static_cast<int32_t>(tokens_.size());
    to.num_rows = static_cast<int32_t>(from.tokens.size());
    to.past = from.past;
    to.gates_begin =
        from.head_gates.empty() ? -1 : static_cast<int64_t>(head_gates_.size());
    AddGates(from.head_gates);
    to.block_begin.clear();
    for (const absl::Span<const int64_t>& blocks : from.blocks) {
      to.block_begin.push_back(static_cast<int64_t>(block_offsets_.size()));
      block_offsets_.insert(block_offsets_.end(), blocks.begin(), blocks.end());
    }
    for (int32_t i = 0; i < to.num_rows; ++i) {
      tokens_.push_back(from.tokens[static_cast<size_t>(i)]);
      positions_.push_back(from.past + i);
      if (i >= to.num_rows - from.logits_rows) {
        logits_row_indices_.push_back(to.first_row + i);
      }
    }
  }
  CHECK(static_cast<int64_t>(tokens_.size()) <= max_rows_)
      << tokens_.size() << " tokens in a step of " << max_rows_;
  CHECK(static_cast<int64_t>(logits_row_indices_.size()) <= max_logits_rows_)
      << logits_row_indices_.size() << " logits rows, at most "
      << max_logits_rows_;
  const auto sequences =
      absl::Span<const StepSequence>(sequences_).first(batch.sequences.size());
  for (size_t c = 0; c < plans_.size(); ++c) {
    const LayerHeads& heads = parts_.layout->layers()[class_layer_[c]];
    if (!heads.has_attention()) continue;
    PlanAttention(heads, sequences, AttentionPlanOptions{}, &plans_[c]);
  }
  return {.tokens = tokens_,
          .positions = positions_,
          .sequences = sequences,
          .block_offsets = block_offsets_,
          .plans = plans_,
          .head_gates = head_gates_};
}

void Decoder::AddGates(absl::Span<const float> gates) {
  if (gates.empty()) return;
  CHECK(static_cast<int64_t>(gates.size()) ==
        parts_.layout->dense_query_heads())
      << gates.size() << " gates";
  for (const LayerHeads& layer : parts_.layout->layers()) {
    for (const int head : layer.query_heads) {
      head_gates_.push_back(gates[static_cast<size_t>(head)]);
    }
    gates.remove_prefix(static_cast<size_t>(layer.dense.query_heads));
  }
}

Logits Decoder::Forward(const Batch& batch, void* arena) {
  const ModelConfig& config = *parts_.config;
  const Weights& weights = *parts_.weights;
  Backend& backend = *parts_.backend;
  const Matrix& output =
      weights.output == nullptr ? *weights.embedding : *weights.output;
  const StepInputs inputs = BuildStep(batch);
  const auto rows = static_cast<int64_t>(tokens_.size());
  const auto logits_rows = static_cast<int64_t>(logits_row_indices_.size());
  Logits logits{
      .data = FloatsOf(logits_), .rows = logits_rows, .vocab = config.vocab};
  if (rows == 0) return logits;

  backend.BeginStep(inputs, rope_);
  backend.Embed(*weights.embedding, FloatsOf(residual_));
  for (size_t layer = 0; layer < weights.layers.size(); ++layer) {
    RunAttention(layer, rows, arena);
    RunFeedForward(layer, rows);
  }
  if (logits_rows == 0) return logits;
  // Only the rows asked for go through the final norm and the output matrix.
  backend.GatherRows(FloatsOf(residual_), logits_row_indices_, config.hidden,
                     FloatsOf(normed_));
  backend.RmsNorm(FloatsOf(normed_), FloatsOf(weights.final_norm),
                  static_cast<float>(config.rms_epsilon), logits_rows,
                  config.hidden, FloatsOf(normed_));
  backend.MatMul(output, FloatsOf(normed_), logits_rows, nullptr,
                 Backend::MatMulMode::kStore, FloatsOf(logits_));
  return logits;
}

void Decoder::RunAttention(size_t layer, int64_t rows, void* arena) {
  const ModelConfig& config = *parts_.config;
  const LayerWeights& weights = parts_.weights->layers[layer];
  Backend& backend = *parts_.backend;
  const LayerHeads& heads = parts_.layout->layers()[layer];
  if (!heads.has_attention()) {
    if (weights.constant_out == nullptr) return;
    backend.MatMul(*weights.constant_out, FloatsOf(ones_), rows, nullptr,
                   Backend::MatMulMode::kAdd, FloatsOf(residual_));
    return;
  }
  const AttentionLayer attention{
      .heads = &heads,
      .geometries = parts_.geometries,
      .layer = static_cast<int>(layer),
      .layer_class = parts_.layout->layer_class()[layer],
      .query_heads_below = query_heads_below_[layer],
      .head_dim = parts_.layout->head_dim(),
      .q_norm = FloatsOf(weights.q_norm),
      .k_norm = FloatsOf(weights.k_norm),
      .norm_epsilon = static_cast<float>(config.rms_epsilon)};
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
