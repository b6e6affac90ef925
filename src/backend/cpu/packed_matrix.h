// A weight matrix in the order in which MatMul reads it.
//
// 32 output rows make a panel [cols][32], so that a vector holds neighbouring
// outputs of one column and no sum crosses lanes; the last panel is filled up
// with zeros. The two halves of a panel are loaded together: lanes [i, i + n)
// and [16 + i, 16 + i + n). In bf16 these two are neighbours, in the low and
// the high half of one 32-bit word: a shift and a mask make floats of them.
// Panels of quantised weights: quantized_panel.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "backend/backend.h"
#include "backend/cpu/host_buffer.h"
#include "backend/cpu/thread_pool.h"
#include "backend/matrix_source.h"

namespace headcount {

// Immutable.
class PackedMatrix final : public Matrix {
 public:
  static constexpr int64_t kPanelRows = 32;

  // CHECKs that the pieces cover the matrix. ResourceExhausted when there is no
  // room.
  static absl::StatusOr<std::unique_ptr<PackedMatrix>> Create(
      const MatrixSource& source, Precision precision, ThreadPool* pool);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return storage_->bytes(); }

  // At rest: a float, kQ4_1 or kQ8_0.
  ElementType dtype() const { return dtype_; }
  // Of an element of x, where weights are quantised.
  int input_bytes() const { return wide_input_ ? 2 : 1; }
  int64_t panels() const { return (rows_ + kPanelRows - 1) / kPanelRows; }
  const std::byte* panel(int64_t index) const;

  // out: [cols]
  void CopyRow(int64_t row, float* out) const;

 private:
  PackedMatrix(const MatrixSource& source, ElementType dtype)
      : rows_(source.rows),
        cols_(source.cols),
        dtype_(dtype),
        wide_input_(source.wide_input) {}

  void PackPanel(const MatrixSource& source, int64_t index);
  int64_t panel_bytes() const;

  int64_t rows_;
  int64_t cols_;
  ElementType dtype_;
  bool wide_input_;
  std::unique_ptr<HostBuffer> storage_;
};

}  // namespace headcount
