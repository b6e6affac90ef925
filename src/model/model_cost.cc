#include "model/model_cost.h"

#include <algorithm>

#include "base/check.h"
#include "heads/kv_geometry.h"

namespace headcount {
namespace {

// Nothing here overflows: model_limits.h keeps elements below 2^49, and 4 D
// times heads, layers and context below 2^57.

int64_t Count(const auto& list) { return static_cast<int64_t>(list.size()); }

int64_t NormElements(const ModelShape& shape) {
  return shape.hidden * (shape.norm_bias ? 2 : 1);
}

int64_t AttentionElements(const ModelShape& shape, const LayerHeads& layer) {
  if (layer.dense.query_heads == 0) return 0;
  const int64_t q = Count(layer.query_heads);
  const int64_t k = Count(layer.kv_heads);
  // Of a layer without heads, the bias of its output is left.
  int64_t elements = shape.attention_out_bias ? shape.hidden : 0;
  if (!layer.has_attention()) return elements;
  elements += 2 * (q + k) * shape.hidden * shape.head_dim;
  if (shape.qkv_bias) elements += (q + 2 * k) * shape.head_dim;
  if (shape.qk_norm) elements += 2 * int64_t{shape.head_dim};
  if (!shape.shared_norm) elements += NormElements(shape);
  return elements;
}

int64_t MlpElements(const ModelShape& shape, int64_t ffn) {
  if (ffn == 0) return 0;
  const int64_t inner = shape.gated_mlp ? 2 : 1;  // matrices into the network
  int64_t elements = (inner + 1) * shape.hidden * ffn + NormElements(shape);
  if (shape.mlp_bias) elements += inner * ffn + shape.hidden;
  return elements;
}

// Tokens of `context_tokens` that a token at their end attends to.
int64_t Attended(const Retention& retention, int64_t context_tokens) {
  if (retention.full()) return context_tokens;
  return std::min<int64_t>(context_tokens,
                           int64_t{retention.sink} + retention.window);
}

// The sum of Attended over all tokens of a prompt.
double AttendedByAll(const Retention& retention, int64_t tokens,
                     bool bidirectional) {
  const auto all = static_cast<double>(tokens);
  if (bidirectional) return all * all;
  const auto grows = static_cast<double>(Attended(retention, tokens));
  return grows * (grows + 1) / 2 + (all - grows) * grows;
}

}  // namespace

int64_t Parameters(const ModelShape& shape, const HeadLayout& layout) {
  CHECK(layout.layers().size() == shape.ffn.size());
  int64_t elements = shape.vocab * shape.hidden * (shape.tied_output ? 1 : 2) +
                     shape.other_parameters + NormElements(shape);
  for (size_t l = 0; l < shape.ffn.size(); ++l) {
    elements += AttentionElements(shape, layout.layers()[l]) +
                MlpElements(shape, shape.ffn[l]);
  }
  return elements;
}

int64_t WeightBytes(int64_t parameters, ElementType type) {
  const ElementBlock block = BlockOf(type);
  return parameters / block.elements * block.bytes +
         parameters % block.elements * block.bytes / block.elements;
}

TokenFlops FlopsPerToken(const ModelShape& shape, const HeadLayout& layout,
                         int64_t context_tokens) {
  const int64_t head_dim = shape.head_dim;
  TokenFlops flops;
  for (size_t l = 0; l < shape.ffn.size(); ++l) {
    const LayerHeads& layer = layout.layers()[l];
    flops.projections += 4 * shape.hidden * head_dim *
                         (Count(layer.query_heads) + Count(layer.kv_heads));
    for (const KvHead& head : layer.kv_heads) {
      flops.attention += 4 * head_dim * head.num_queries *
                         Attended(head.retention, context_tokens);
    }
    flops.mlp += (shape.gated_mlp ? 6 : 4) * shape.hidden * shape.ffn[l];
  }
  if (shape.decoder) flops.output = 2 * shape.hidden * shape.vocab;
  return flops;
}

double PrefillFlops(const ModelShape& shape, const HeadLayout& layout,
                    int64_t context_tokens) {
  const TokenFlops flops = FlopsPerToken(shape, layout, context_tokens);
  double total = static_cast<double>(flops.projections + flops.mlp) *
                     static_cast<double>(context_tokens) +
                 static_cast<double>(flops.output);
  for (const LayerHeads& layer : layout.layers()) {
    for (const KvHead& head : layer.kv_heads) {
      total += 4.0 * shape.head_dim * head.num_queries *
               AttendedByAll(head.retention, context_tokens, !shape.decoder);
    }
  }
  return total;
}

int64_t AttendedBytes(const HeadLayout& layout, int64_t context_tokens) {
  int64_t bytes = 0;
  for (size_t group = 0; group < layout.groups().size(); ++group) {
    const absl::StatusOr<KvGeometry> geometry =
        KvGeometry::Create(layout, static_cast<int>(group));
    CHECK(geometry.ok()) << geometry.status();
    bytes += geometry->bytes_per_token() *
             Attended(layout.groups()[group].retention, context_tokens);
  }
  return bytes;
}

}  // namespace headcount
