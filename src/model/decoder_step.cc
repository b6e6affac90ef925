// What a step is made of, before any of it is computed.
#include <algorithm>

#include "base/check.h"
#include "model/decoder.h"
#include "model/layer_inputs.h"

namespace headcount {
namespace {

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

// Whether rows of layers are taken from or kept for a sequence.
bool ExchangesInputs(const Batch& batch) {
  return std::any_of(batch.sequences.begin(), batch.sequences.end(),
                     [](const BatchSequence& sequence) {
                       return sequence.inputs != nullptr ||
                              sequence.kept_inputs != nullptr;
                     });
}

}  // namespace

StepInputs Decoder::BuildStep(const Batch& batch) {
  tokens_.clear();
  positions_.clear();
  block_offsets_.clear();
  head_gates_.clear();
  logits_row_indices_.clear();
  variants_.clear();
  variant_ids_.clear();
  counted_.clear();
  exchanges_ = ExchangesInputs(batch);
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
  ClassifyLayers();
  if (parts_.backend->walks_plans()) PlanLayers(sequences);
  ListLayers();
  return {.tokens = tokens_,
          .positions = positions_,
          .sequences = sequences,
          .block_offsets = block_offsets_,
          .plans = plans_,
          .head_gates = head_gates_,
          .layers = layers_,
          .variant_ids = variant_ids_,
          .logits_rows = logits_row_indices_,
          .uninterrupted = counted_.empty() && !exchanges_};
}

absl::Status Decoder::ReserveSteps(const Variant& variant,
                                   int32_t max_context) {
  variants_ = {&variant};
  ClassifyLayers();
  ListLayers();
  const Weights& weights = *parts_.weights;
  std::vector<const Matrix*> matrices = {weights.embedding.get(),
                                         weights.output.get()};
  for (const LayerWeights& layer : weights.layers) {
    for (const auto* const matrix :
         {&layer.qkv, &layer.attention_out, &layer.constant_out, &layer.gate_up,
          &layer.down}) {
      matrices.push_back(matrix->get());
    }
  }
  matrices.erase(std::remove(matrices.begin(), matrices.end(), nullptr),
                 matrices.end());
  return parts_.backend->ReserveSteps({.rows = max_rows_,
                                       .logits_rows = max_logits_rows_,
                                       .context = max_context,
                                       .vocab = parts_.config->vocab,
                                       .layers = layers_,
                                       .matrices = matrices});
}

int32_t Decoder::VariantIndex(const Variant* variant) {
  if (variant == nullptr) variant = parts_.whole;
  const auto found = std::find(variants_.begin(), variants_.end(), variant);
  const auto index = static_cast<int32_t>(found - variants_.begin());
  if (found == variants_.end()) {
    variants_.push_back(variant);
    variant_ids_.push_back(variant->id());
  }
  return index;
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

void Decoder::PlanLayers(absl::Span<const StepSequence> sequences) {
  if (plans_.size() < class_layer_.size()) plans_.resize(class_layer_.size());
  for (size_t c = 0; c < class_layer_.size(); ++c) {
    layer_heads_.clear();
    for (const Variant* const variant : variants_) {
      layer_heads_.push_back(&variant->layout().layers()[class_layer_[c]]);
    }
    PlanAttention(layer_heads_, sequences, AttentionPlanOptions{}, &plans_[c]);
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

}  // namespace headcount
