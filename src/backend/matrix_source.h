// A weight matrix before it is packed: put together from pieces of mapped
// tensors, so that rows and columns of pruned heads are never read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace headcount {

enum class WeightDtype : uint8_t { kF32, kF16, kBf16 };

// A block of rows x cols elements, copied to (row, col) of the matrix.
struct MatrixPiece {
  const std::byte* data = nullptr;  // its first element; may be unaligned
  WeightDtype dtype = WeightDtype::kF32;
  int64_t stride = 0;  // elements from one row to the next
  int64_t row = 0;
  int64_t col = 0;
  int64_t rows = 0;
  int64_t cols = 0;
};

// The pieces cover the matrix exactly once. Stored at rest in their dtype if
// all have the same one, else in float32; arithmetic is float32 either way.
struct MatrixSource {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<MatrixPiece> pieces;
};

}  // namespace headcount
