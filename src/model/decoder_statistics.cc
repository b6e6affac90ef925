// Statistics of heads, for the sequences that ask for them. Everything here is
// off the path of others: host code over copies of a layer's rows.
#include <algorithm>
#include <cmath>
#include <vector>

#include "model/decoder.h"
#include "model/head_statistics.h"

namespace headcount {
namespace {

// Rows of a step, on the host.
struct HostRows {
  HostRows(Backend* backend, const std::unique_ptr<Buffer>& buffer,
           int64_t rows, int64_t its_cols)
      : cols(static_cast<size_t>(its_cols)),
        values(static_cast<size_t>(rows) * cols) {
    backend->CopyToHost(buffer->data(),
                        static_cast<int64_t>(values.size() * sizeof(float)),
                        values.data());
  }
  absl::Span<const float> Row(size_t row) const {
    return absl::MakeConstSpan(values).subspan(row * cols, cols);
  }

  const size_t cols;
  std::vector<float> values;
};

double Norm(absl::Span<const float> row) {
  double square = 0;
  for (const float x : row) square += double{x} * double{x};
  return std::sqrt(square);
}

// The heads in `slots` of a row of heads.
void AppendHeads(absl::Span<const float> row, absl::Span<const int> slots,
                 size_t head_dim, std::vector<float>* to) {
  for (const int slot : slots) {
    const absl::Span<const float> head =
        row.subspan(static_cast<size_t>(slot) * head_dim, head_dim);
    to->insert(to->end(), head.begin(), head.end());
  }
}

}  // namespace

void Decoder::AddCounted(const BatchSequence& sequence,
                         const StepSequence& rows) {
  if (sequence.statistics == nullptr) return;
  const int32_t skipped =
      std::clamp(sequence.statistics_from - rows.past, 0, rows.num_rows);
  if (skipped == rows.num_rows) return;
  counted_.push_back({.to = sequence.statistics,
                      .first_row = rows.first_row + skipped,
                      .num_rows = rows.num_rows - skipped,
                      .variant = static_cast<size_t>(rows.variant)});
}

void Decoder::CountHeads(size_t layer, int64_t rows) {
  const Matrix& out = *parts_.weights->layers[layer].attention_out;
  const auto head_dim = static_cast<size_t>(parts_.config->head_dim);
  const HostRows residual(parts_.backend, residual_, rows,
                          parts_.config->hidden);
  const HostRows context(parts_.backend, narrow_, rows, out.cols());
  // Sequences of the same statistics are added together.
  std::vector<const HeadStatistics*> done;
  for (const Counted& first : counted_) {
    if (std::count(done.begin(), done.end(), first.to) > 0) continue;
    done.push_back(first.to);
    const std::vector<int>& slots =
        variants_[first.variant]->slots()[layer].query;
    if (slots.empty()) continue;
    if (first.to->NeedsProjection(layer)) {
      TellProjection(layer, slots, first.to);
    }
    HeadRows gathered;
    for (const Counted& counted : counted_) {
      if (counted.to != first.to) continue;
      for (int32_t i = 0; i < counted.num_rows; ++i) {
        const auto row =
            static_cast<size_t>(counted.first_row) + static_cast<size_t>(i);
        gathered.residual_norm.push_back(Norm(residual.Row(row)));
        AppendHeads(context.Row(row), slots, head_dim, &gathered.context);
      }
    }
    first.to->Add(layer, gathered, parts_.backend);
  }
}

// Its columns are what it makes of unit vectors. Uses workspaces that the layer
// has done with.
void Decoder::TellProjection(size_t layer, absl::Span<const int> slots,
                             HeadStatistics* statistics) {
  const Matrix& out = *parts_.weights->layers[layer].attention_out;
  const auto head_dim = static_cast<int64_t>(parts_.config->head_dim);
  std::vector<int64_t> kept;
  for (const int slot : slots) {
    for (int64_t i = 0; i < head_dim; ++i) kept.push_back(slot * head_dim + i);
  }
  std::vector<float> columns;
  const auto width = static_cast<int64_t>(kept.size());
  for (int64_t first = 0; first < width; first += max_rows_) {
    const int64_t rows = std::min<int64_t>(max_rows_, width - first);
    std::vector<float> units(static_cast<size_t>(rows * out.cols()));
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t one = kept[static_cast<size_t>(first + i)];
      units[static_cast<size_t>(i * out.cols() + one)] = 1.0f;
    }
    parts_.backend->CopyToDevice(
        units.data(), static_cast<int64_t>(units.size() * sizeof(float)),
        wide_->data());
    parts_.backend->MatMul(out, static_cast<const float*>(wide_->data()), rows,
                           nullptr, Backend::MatMulMode::kStore,
                           static_cast<float*>(normed_->data()));
    const HostRows made(parts_.backend, normed_, rows, out.rows());
    columns.insert(columns.end(), made.values.begin(), made.values.end());
  }
  statistics->SetProjection(layer, columns, parts_.backend);
}

}  // namespace headcount
