#include "backend/cuda/matmul_kernels.cuh"
#include "backend/cuda/matmul_kernels.h"

namespace headcount::cuda {
namespace {

// A kernel, and what a block of it multiplies.
struct MatMulChoice {
  Kernel<MatMulParams> kernel;
  int panels = 0;
  int rows = 0;
};

template <ElementType kDtype, int kPanels, int kGroups>
MatMulChoice ChoiceOf() {
  using Shape = MatMulShape<kDtype, kPanels, kGroups>;
  return {.kernel = {.kernel = MatMulPanels<Shape>,
                     .threads = kMatMulThreads,
                     .shared_bytes = Shape::kSharedBytes},
          .panels = kPanels,
          .rows = kGroups * kGroupRows};
}

// Below this many outputs, blocks of four panels leave processors of a large
// device without one.
constexpr int64_t kManyOutputs = 8192;

template <ElementType kDtype>
MatMulChoice ChoiceOf(int64_t outputs, int32_t rows) {
  if (rows <= 8) return ChoiceOf<kDtype, 2, 1>();
  if (rows <= 16) return ChoiceOf<kDtype, 2, 2>();
  if (rows <= 32 && outputs < kManyOutputs) return ChoiceOf<kDtype, 2, 4>();
  // Of a prompt, as many sums as there are registers for: bf16 needs none on
  // its way.
  if constexpr (kDtype == ElementType::kBf16) {
    if (rows > 32) return ChoiceOf<kDtype, 4, 8>();
  }
  return ChoiceOf<kDtype, 4, 4>();
}

MatMulChoice Choose(const PackedLayout& layout, int32_t rows) {
  switch (layout.dtype) {
    case ElementType::kF16:
      return ChoiceOf<ElementType::kF16>(layout.rows, rows);
    case ElementType::kBf16:
      return ChoiceOf<ElementType::kBf16>(layout.rows, rows);
    case ElementType::kQ8_0:
      return ChoiceOf<ElementType::kQ8_0>(layout.rows, rows);
    case ElementType::kQ4_1:
      return ChoiceOf<ElementType::kQ4_1>(layout.rows, rows);
    default:
      return {.kernel = {.kernel = MatMulFloats, .threads = kMatMulThreads},
              .panels = kFloatPanels,
              .rows = kGroupRows};
  }
}

}  // namespace

Kernel<MatMulParams> FindMatMulKernel(const PackedLayout& layout,
                                      int32_t rows) {
  return Choose(layout, rows).kernel;
}

int MatMulGrid(const PackedLayout& layout, int32_t rows) {
  const MatMulChoice choice = Choose(layout, rows);
  const int64_t panel_blocks =
      (layout.panels() + choice.panels - 1) / choice.panels;
  return static_cast<int>(panel_blocks) *
         ((rows + choice.rows - 1) / choice.rows);
}

}  // namespace headcount::cuda
