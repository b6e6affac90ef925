#include "backend/cuda/matmul_tiles.cuh"
#include "backend/cuda/matmul_tiles.h"

namespace headcount::cuda {
namespace {

template <class Shape>
int64_t Tiles(const PackedLayout& layout, int32_t rows) {
  return ((layout.rows + Shape::kOutputs - 1) / Shape::kOutputs) *
         ((rows + Shape::kRows - 1) / Shape::kRows);
}

template <class Shape>
MatMulLaunch ChoiceOf(const PackedLayout& layout, int32_t rows) {
  return {.kernel = {.kernel = MatMulTiles<Shape>,
                     .threads = kMatMulThreads,
                     .shared_bytes = Shape::kSharedBytes},
          .grid = static_cast<int>(Tiles<Shape>(layout, rows))};
}

template <ElementType kDtype>
MatMulLaunch Choose(const PackedLayout& layout, int32_t rows,
                    int multiprocessors) {
  using Flat = TileShape<kDtype, 8, 8>;   // 128 outputs, 64 rows
  using Small = TileShape<kDtype, 4, 8>;  // 64 x 64
  // Beside quantised weights it is x that takes room and time to copy, and
  // registers have scales to hold, too: flat tiles need no more bytes a clock
  // than large ones of 16 bits.
  if constexpr (!Flat::kQuantized) {
    using Large = TileShape<kDtype, 8, 16>;  // 128 x 128
    if (rows > Flat::kRows && Tiles<Large>(layout, rows) >= multiprocessors) {
      return ChoiceOf<Large>(layout, rows);
    }
  }
  if (Tiles<Flat>(layout, rows) >= multiprocessors) {
    return ChoiceOf<Flat>(layout, rows);
  }
  return ChoiceOf<Small>(layout, rows);
}

}  // namespace

MatMulLaunch TilesFor(const PackedLayout& layout, int32_t rows,
                      int multiprocessors) {
  switch (layout.dtype) {
    case ElementType::kF16:
      return Choose<ElementType::kF16>(layout, rows, multiprocessors);
    case ElementType::kBf16:
      return Choose<ElementType::kBf16>(layout, rows, multiprocessors);
    case ElementType::kQ8_0:
      return Choose<ElementType::kQ8_0>(layout, rows, multiprocessors);
    default:
      return Choose<ElementType::kQ4_1>(layout, rows, multiprocessors);
  }
}

}  // namespace headcount::cuda
