#include "backend/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/half.h"
#include "base/check.h"

namespace headcount {
namespace {

constexpr int64_t kPanelRows = PackedMatrix::kPanelRows;

int64_t ElementBytes(WeightDtype dtype) {
  return dtype == WeightDtype::kF32 ? 4 : 2;
}

// Where element (column, row) of a panel lies, in elements.
int64_t OffsetInPanel(WeightDtype dtype, int64_t column, int64_t row) {
  const int64_t half = kPanelRows / 2;
  const int64_t lane = dtype != WeightDtype::kBf16 ? row
                       : row < half                ? 2 * row
                                                   : 2 * (row - half) + 1;
  return column * kPanelRows + lane;
}

template <typename T>
T ReadUnaligned(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

float ReadFloat(WeightDtype dtype, const std::byte* from) {
  switch (dtype) {
    case WeightDtype::kF32:
      return ReadUnaligned<float>(from);
    case WeightDtype::kF16:
      return FloatFromHalf(ReadUnaligned<uint16_t>(from));
    case WeightDtype::kBf16:
      return FloatFromBfloat16(ReadUnaligned<uint16_t>(from));
  }
  return 0;
}

WeightDtype DtypeAtRest(const MatrixSource& source) {
  CHECK(!source.pieces.empty());
  const WeightDtype first = source.pieces.front().dtype;
  for (const MatrixPiece& piece : source.pieces) {
    if (piece.dtype != first) return WeightDtype::kF32;
  }
  return first;
}

void CheckCovered(const MatrixSource& source) {
  int64_t elements = 0;
  for (const MatrixPiece& piece : source.pieces) {
    CHECK(piece.row >= 0 && piece.col >= 0 &&
          piece.row + piece.rows <= source.rows &&
          piece.col + piece.cols <= source.cols)
        << "piece at " << piece.row << ", " << piece.col;
    elements += piece.rows * piece.cols;
  }
  CHECK(elements == source.rows * source.cols)
      << "pieces hold " << elements << " elements of a matrix of "
      << source.rows << " x " << source.cols;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PackedMatrix>> PackedMatrix::Create(
    const MatrixSource& source, ThreadPool* pool) {
  CheckCovered(source);
  std::unique_ptr<PackedMatrix> matrix(
      new PackedMatrix(source, DtypeAtRest(source)));
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
  return cols_ * kPanelRows * ElementBytes(dtype_);
}

const std::byte* PackedMatrix::panel(int64_t index) const {
  const HostBuffer& storage = *storage_;
  return static_cast<const std::byte*>(storage.data()) + index * panel_bytes();
}

void PackedMatrix::PackPanel(const MatrixSource& source, int64_t index) {
  std::byte* panel =
      static_cast<std::byte*>(storage_->data()) + index * panel_bytes();
  const int64_t first = index * kPanelRows;
  const int64_t element = ElementBytes(dtype_);
  for (const MatrixPiece& piece : source.pieces) {
    const int64_t begin = std::max(first, piece.row);
    const int64_t end = std::min(first + kPanelRows, piece.row + piece.rows);
    const int64_t piece_element = ElementBytes(piece.dtype);
    for (int64_t row = begin; row < end; ++row) {
      const std::byte* from =
          piece.data + (row - piece.row) * piece.stride * piece_element;
      std::byte* to =
          panel + OffsetInPanel(dtype_, piece.col, row - first) * element;
      for (int64_t col = 0; col < piece.cols; ++col) {
        if (piece.dtype == dtype_) {
          std::memcpy(to, from, static_cast<size_t>(element));
        } else {
          const float value = ReadFloat(piece.dtype, from);
          std::memcpy(to, &value, sizeof(value));
        }
        from += piece_element;
        to += kPanelRows * element;
      }
    }
  }
}

void PackedMatrix::CopyRow(int64_t row, float* out) const {
  CHECK(row >= 0 && row < rows_) << "row " << row << " of " << rows_;
  const int64_t element = ElementBytes(dtype_);
  const std::byte* from = panel(row / kPanelRows) +
                          OffsetInPanel(dtype_, 0, row % kPanelRows) * element;
  for (int64_t col = 0; col < cols_; ++col) {
    out[col] = ReadFloat(dtype_, from + col * kPanelRows * element);
  }
}

}  // namespace headcount
