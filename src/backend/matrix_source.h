// A weight matrix before it is packed: put together from pieces of mapped
// tensors, so that rows and columns of pruned heads are never read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/element_type.h"

namespace headcount {

// A block of rows x cols elements, copied to (row, col) of the matrix.
struct MatrixPiece {
  const std::byte* data = nullptr;  // its first source row; may be unaligned
  ElementType dtype = ElementType::kF32;
  int64_t stride = 0;     // elements from one row to the next, whole blocks
  int64_t first_col = 0;  // element of each source row that comes first
  int64_t row = 0;
  int64_t col = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};

// The pieces cover the matrix exactly once. Floats are stored at rest in their
// dtype if all have the same one, else in float32; see Precision (backend.h)
// for quantised pieces.
struct MatrixSource {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<MatrixPiece> pieces;
  // Beside quantised weights, rows of x keep 16 bits instead of 8: for a
  // product to whose input the model is sensitive.
  bool wide_input = false;
};

}  // namespace headcount
