#include "model/head_statistics.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/check.h"

namespace headcount {
namespace {

// rows x rows^T of [count, cols], by the backend, in float32.
absl::StatusOr<std::vector<float>> Gram(absl::Span<const float> rows,
                                        int64_t count, int64_t cols,
                                        Backend* backend) {
  const MatrixSource source{
      .rows = count,
      .cols = cols,
      .pieces = {{.data = reinterpret_cast<const std::byte*>(rows.data()),
                  .dtype = ElementType::kF32,
                  .stride = cols,
                  .rows = count,
                  .cols = cols}}};
  absl::StatusOr<std::unique_ptr<Matrix>> matrix =
      backend->Pack(source, Precision::kExact);
  if (!matrix.ok()) return matrix.status();
  std::vector<float> gram(static_cast<size_t>(count * count));
  const auto bytes = static_cast<int64_t>(rows.size() * sizeof(float));
  const auto gram_bytes = static_cast<int64_t>(gram.size() * sizeof(float));
  absl::StatusOr<std::unique_ptr<Buffer>> x = backend->Allocate(bytes);
  if (!x.ok()) return x.status();
  absl::StatusOr<std::unique_ptr<Buffer>> product =
      backend->Allocate(gram_bytes);
  if (!product.ok()) return product.status();
  backend->CopyToDevice(rows.data(), bytes, (*x)->data());
  backend->MatMul(**matrix, static_cast<const float*>((*x)->data()), count,
                  nullptr, Backend::MatMulMode::kStore,
                  static_cast<float*>((*product)->data()));
  backend->CopyToHost((*product)->data(), gram_bytes, gram.data());
  return gram;
}

// [rows, cols] -> [cols, rows]
std::vector<float> Transposed(absl::Span<const float> from, size_t rows,
                              size_t cols) {
  std::vector<float> to(from.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) to[c * rows + r] = from[r * cols + c];
  }
  return to;
}

// v^T m v of a square matrix, in double precision.
double QuadraticForm(absl::Span<const float> m, absl::Span<const float> v) {
  double total = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    double row = 0;
    for (size_t j = 0; j < v.size(); ++j) {
      row += double{m[i * v.size() + j]} * double{v[j]};
    }
    total += row * double{v[i]};
  }
  return total;
}

}  // namespace

HeadStatistics::HeadStatistics(const HeadLayout& layout, bool gram)
    : head_dim_(layout.head_dim()), gram_(gram) {
  for (const LayerHeads& heads : layout.layers()) {
    LayerStatistics& layer = layers_.emplace_back();
    layer.query_heads = heads.query_heads;
    layer.output_norm.resize(heads.query_heads.size());
    layer.sum.resize(heads.query_heads.size() * static_cast<size_t>(head_dim_));
    if (gram) layer.gram.resize(layer.sum.size() * layer.sum.size());
  }
}

int64_t HeadStatistics::GramBytes(const HeadLayout& layout) {
  int64_t bytes = 0;
  for (const LayerHeads& heads : layout.layers()) {
    const auto width =
        static_cast<int64_t>(heads.query_heads.size()) * layout.head_dim();
    bytes += width * width * static_cast<int64_t>(sizeof(double));
  }
  return bytes;
}

void HeadStatistics::SetProjection(size_t layer,
                                   absl::Span<const float> columns,
                                   Backend* backend) {
  LayerStatistics& to = layers_[layer];
  if (to.sum.empty()) return;
  const size_t hidden = columns.size() / to.sum.size();
  const size_t of_head = static_cast<size_t>(head_dim_) * hidden;
  for (size_t head = 0; head < to.query_heads.size(); ++head) {
    const absl::StatusOr<std::vector<float>> product =
        Gram(columns.subspan(head * of_head, of_head), head_dim_,
             static_cast<int64_t>(hidden), backend);
    if (!product.ok()) return status_.Update(product.status());
    to.output_products.insert(to.output_products.end(), product->begin(),
                              product->end());
  }
}

void HeadStatistics::Add(size_t layer, const HeadRows& rows, Backend* backend) {
  if (!status_.ok()) return;
  LayerStatistics& to = layers_[layer];
  const size_t width = to.sum.size();
  const auto dim = static_cast<size_t>(head_dim_);
  const auto context = absl::MakeConstSpan(rows.context);
  const auto products = absl::MakeConstSpan(to.output_products);
  CHECK(context.size() == rows.residual_norm.size() * width);
  for (size_t row = 0; row < rows.residual_norm.size(); ++row) {
    const absl::Span<const float> o = context.subspan(row * width, width);
    for (size_t i = 0; i < width; ++i) to.sum[i] += double{o[i]};
    if (rows.residual_norm[row] == 0) continue;  // no scale to compare with
    for (size_t head = 0; head < to.query_heads.size(); ++head) {
      const double square =
          QuadraticForm(products.subspan(head * dim * dim, dim * dim),
                        o.subspan(head * dim, dim));
      to.output_norm[head] +=
          std::sqrt(std::max(square, 0.0)) / rows.residual_norm[row];
    }
  }
  to.tokens += static_cast<int64_t>(rows.residual_norm.size());
  if (!gram_) return;
  const size_t count = rows.residual_norm.size();
  const absl::StatusOr<std::vector<float>> gram =
      Gram(Transposed(context, count, width), static_cast<int64_t>(width),
           static_cast<int64_t>(count), backend);
  if (!gram.ok()) return status_.Update(gram.status());
  for (size_t i = 0; i < gram->size(); ++i) to.gram[i] += double{(*gram)[i]};
}

}  // namespace headcount
