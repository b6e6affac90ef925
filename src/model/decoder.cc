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
    const Retention& retention = groups[group].retention;
    const int64_t first = retention.FirstSeen(sequence.past);
    CHECK(blocks[static_cast<size_t>(first / kBlockTokens)] >= 0)
        << "token " << first << " has been given back";
    CHECK(retention.sink == 0 || blocks[0] >= 0)
        << "the sink has been given back";
  }
  for (const LayerInputs* const inputs :
       {sequence.inputs,
        static_cast<const LayerInputs*>(sequence.kept_inputs)}) {
    CHECK(inputs == nullptr ||
          static_cast<int64_t>(inputs->tokens()) >= sequence.past + num_tokens);
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

StepInputs Decoder::BuildStep(const Batch& batch) {
  tokens_.clear();
  positions_.clear();
  block_offsets_.clear();
  head_gates_.clear();
  logits_row_indices_.clear();
  variants_.clear();
  counted_.clear();
  if (sequences_.size() < batch.sequences.size()) {
    sequences_.resize(batch.sequences.size());
  }
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const BatchSequence& from = batch.sequences[s];
    StepSequence& to = sequences_[s];
    to.variant = VariantIndex(from.variant);
    const Variant& variant = *variants_[static_cast<size_t>(to.variant)];
    CheckSequence(from, *parts_.config, variant.layout().groups());
    to.first_row = static_cast<int32_t>(tokens_.size());
    to.num_rows = static_cast<int32_t>(from.tokens.size());
    to.past = from.past;
    to.gates_begin =
        from.head_gates.empty() ? -1 : static_cast<int64_t>(head_gates_.size());
    AddGates(from.head_gates);
    AddCounted(from, to);
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
  PlanLayers(sequences);
  ListLayers();
  return {.tokens = tokens_,
          .positions = positions_,
          .sequences = sequences,
          .block_offsets = block_offsets_,
          .plans = plans_,
          .head_gates = head_gates_,
          .layers = layers_};
}

int32_t Decoder::VariantIndex(const Variant* variant) {
  if (variant == nullptr) variant = parts_.whole;
  const auto found = std::find(variants_.begin(), variants_.end(), variant);
  const auto index = static_cast<int32_t>(found - variants_.begin());
  if (found == variants_.end()) variants_.push_back(variant);
  return index;
}

void Decoder::PlanLayers(absl::Span<const StepSequence> sequences) {
  ClassifyLayers();
  if (plans_.size() < class_layer_.size()) plans_.resize(class_layer_.size());
  for (size_t c = 0; c < class_layer_.size(); ++c) {
    layer_heads_.clear();
    for (const Variant* const variant : variants_) {
      layer_heads_.push_back(&variant->layout().layers()[class_layer_[c]]);
    }
    PlanAttention(layer_heads_, sequences, AttentionPlanOptions{}, &plans_[c]);
  }
}

void Decoder::ClassifyLayers() {
  layer_class_.clear();
  class_layer_.clear();
  for (size_t layer = 0; layer < query_heads_below_.size(); ++layer) {
    const auto alike = [&](size_t other) {
      return std::all_of(
          variants_.begin(), variants_.end(), [&](const Variant* variant) {
            const std::vector<int>& classes = variant->layout().layer_class();
            return classes[layer] == classes[other];
          });
    };
    const auto found =
        std::find_if(class_layer_.begin(), class_layer_.end(), alike);
    layer_class_.push_back(static_cast<int>(found - class_layer_.begin()));
    if (found == class_layer_.end()) class_layer_.push_back(layer);
  }
}

void Decoder::AddGates(absl::Span<const float> gates) {
  if (gates.empty()) return;
  CHECK(static_cast<int64_t>(gates.size()) ==
        parts_.whole->layout().dense_query_heads())
      << gates.size() << " gates";
  for (const LayerHeads& layer : parts_.whole->layout().layers()) {
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
  const size_t first_layer = FirstLayer(batch);
  if (first_layer == 0) {
    backend.Embed(*weights.embedding, FloatsOf(residual_));
  }
  for (size_t layer = first_layer; layer < weights.layers.size(); ++layer) {
    ExchangeInputs(batch, layer, first_layer);
    RunAttention(layer, rows, arena);
    RunFeedForward(layer, rows);
  }
  ExchangeInputs(batch, weights.layers.size(), first_layer);
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
    if (sequence.kept_inputs != nullptr) {
      parts_.backend->CopyToHost(
          rows, bytes, sequence.kept_inputs->Rows(layer, first, count).data());
    }
  }
}

void Decoder::ListLayers() {
  layers_.clear();
  layer_variants_.clear();
  layer_index_.resize(query_heads_below_.size());
  for (size_t layer = 0; layer < layer_index_.size(); ++layer) {
    for (const Variant* const variant : variants_) {
      const LayerSlots& slots = variant->slots()[layer];
      layer_variants_.push_back({.heads = &variant->layout().layers()[layer],
                                 .geometries = variant->geometries(),
                                 .query_slots = slots.query,
                                 .kv_slots = slots.kv});
    }
  }
  const auto all = absl::MakeConstSpan(layer_variants_);
  for (size_t layer = 0; layer < layer_index_.size(); ++layer) {
    if (parts_.weights->layers[layer].qkv == nullptr) continue;
    layer_index_[layer] = layers_.size();
    layers_.push_back(LayerOf(
        layer, all.subspan(layer * variants_.size(), variants_.size())));
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
  const AttentionPlan& plan = plans_[static_cast<size_t>(layer_class_[layer])];
  // No sequence of the step runs a head of it: all that it adds are zeros.
  if (plan.items.empty() && weights.attention_out_bias == nullptr) return;
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
