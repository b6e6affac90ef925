// What the heads of a model put out over many tokens, before the output
// projection: what cheap scores of heads and refits of output projections are
// made of (docs/masks.md).
//
//   HeadStatistics statistics(model->layout(), /*gram=*/true);
//   sequence.statistics = &statistics;      // of a Batch
//   ... Model::Forward, as often as there are tokens ...
//   statistics.layers()[3].sum;
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "backend/backend.h"
#include "heads/head_layout.h"

namespace headcount {

// Below, o is what the kept query heads of a layer put out for one token, one
// after the other: [width], width = kept query heads x head_dim.
struct LayerStatistics {
  std::vector<int> query_heads;  // kept, of the unpruned layer
  int64_t tokens = 0;
  // [kept query head] sum of |W_o^h o_h| / |x|: how long what the head adds is
  // beside x, the residual stream that the layer reads. W_o^h: the columns of
  // the output projection that belong to the head.
  std::vector<double> output_norm;
  std::vector<double> sum;   // [width] of o
  std::vector<double> gram;  // [width, width] sum of o o^T; empty unless wanted

  // [kept query head][head_dim, head_dim] W_o^h^T W_o^h, once there was a
  // token: |W_o^h o_h|^2 = o_h^T of it o_h.
  std::vector<float> output_products;
};

// Rows of a layer, on the host.
struct HeadRows {
  std::vector<float> context;         // [rows, width] o
  std::vector<double> residual_norm;  // [rows] |x|
};

// Not thread-safe: one step after the other adds to it.
class HeadStatistics {
 public:
  // `layout` is that of the sequences which add to it.
  HeadStatistics(const HeadLayout& layout, bool gram);

  const std::vector<LayerStatistics>& layers() const { return layers_; }
  // ResourceExhausted when the backend had no memory for a product: the sums
  // are not complete then.
  const absl::Status& status() const { return status_; }
  int head_dim() const { return head_dim_; }
  // Of all `gram`s of a model.
  static int64_t GramBytes(const HeadLayout& layout);

  // For the decoder. Products of single steps are computed by the backend in
  // float32, and added up in double precision.

  bool NeedsProjection(size_t layer) const {
    return layers_[layer].output_products.empty();
  }
  // columns: [width, hidden], the columns of the output projection.
  void SetProjection(size_t layer, absl::Span<const float> columns,
                     Backend* backend);
  void Add(size_t layer, const HeadRows& rows, Backend* backend);

 private:
  std::vector<LayerStatistics> layers_;
  int head_dim_;
  bool gram_;
  absl::Status status_;
};

}  // namespace headcount
