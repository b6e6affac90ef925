#include "backend/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/cpu/quantized_panel.h"
#include "backend/weights_at_rest.h"
#include "base/check.h"

namespace headcount {
namespace {

constexpr int64_t kPanelRows = PackedMatrix::kPanelRows;
static_assert(kPanelRows == kQuantizedRows);

// Where element (column, row) of a panel lies, in elements.
int64_t OffsetInPanel(ElementType dtype, int64_t column, int64_t row) {
  const int64_t half = kPanelRows / 2;
  const int64_t lane = dtype != ElementType::kBf16 ? row
                       : row < half                ? 2 * row
                                                   : 2 * (row - half) + 1;
  return column * kPanelRows + lane;
}

float ReadFloat(ElementType dtype, const std::byte* from) {
  float value = 0;
  Dequantize(dtype, from, 0, 1, &value);
  return value;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackedMatrix::Create(
    const MatrixSource& source, Precision precision, ThreadPool* pool) {
  CheckCovered(source);
  std::unique_ptr<PackedMatrix> matrix(
      new PackedMatrix(source, DtypeAtRest(source, precision)));
  absl::StatusOr<std::unique_ptr<HostBuffer>> storage =
      HostBuffer::Create(matrix->panels() * matrix->panel_bytes());
  if (!storage.ok()) return storage.status();
  matrix->storage_ = *std::move(storage);
  pool->Run(matrix->panels(), [&](int64_t index, int /*worker*/) {
    matrix->PackPanel(source, index);
  });
  return matrix;
}

int64_t PackedMatrix::panel_bytes() const {
  const ElementBlock block = BlockOf(dtype_);
  const int64_t blocks = (cols_ + block.elements - 1) / block.elements;
  return kPanelRows * blocks * block.bytes;
}

const std::byte* PackedMatrix::panel(int64_t index) const {
  const HostBuffer& storage = *storage_;
  return static_cast<const std::byte*>(storage.data()) + index * panel_bytes();
}

void PackedMatrix::PackPanel(const MatrixSource& source, int64_t index) {
  std::byte* panel =
      static_cast<std::byte*>(storage_->data()) + index * panel_bytes();
  if (IsQuantized(dtype_)) {
    PackQuantizedPanel(source, dtype_, index, panel);
    return;
  }
  const int64_t first = index * kPanelRows;
  const int64_t end = std::min(first + kPanelRows, source.rows);
  const int64_t element = ElementBytes(dtype_, 1);
  std::vector<std::byte> values(static_cast<size_t>(cols_ * element));
  for (int64_t row = first; row < end; ++row) {
    ReadFloatRow(source, dtype_, row, values.data());
    const std::byte* from = values.data();
    std::byte* to = panel + OffsetInPanel(dtype_, 0, row - first) * element;
    for (int64_t col = 0; col < cols_; ++col) {
      std::memcpy(to, from, static_cast<size_t>(element));
      from += element;
      to += kPanelRows * element;
    }
  }
}

void PackedMatrix::CopyRow(int64_t row, float* out) const {
  CHECK(row >= 0 && row < rows_) << "row " << row << " of " << rows_;
  if (IsQuantized(dtype_)) {
    ReadQuantizedRow(dtype_, panel(row / kPanelRows), row % kPanelRows, cols_,
                     out);
    return;
  }
  const int64_t element = ElementBytes(dtype_, 1);
  const std::byte* from = panel(row / kPanelRows) +
                          OffsetInPanel(dtype_, 0, row % kPanelRows) * element;
  for (int64_t col = 0; col < cols_; ++col) {
    out[col] = ReadFloat(dtype_, from + col * kPanelRows * element);
  }
}

}  // namespace headcount
