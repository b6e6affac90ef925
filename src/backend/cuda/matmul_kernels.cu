#include "backend/cuda/matmul_kernels.cuh"
#include "backend/cuda/matmul_kernels.h"
#include "backend/cuda/matmul_tiles.h"
#include "backend/cuda/split_rows.cuh"

namespace headcount::cuda {
namespace {

// Of blocks of so many panels and rows of x.
MatMulLaunch LaunchOf(const Kernel<MatMulParams>& kernel,
                      const PackedLayout& layout, int panels, int32_t rows,
                      int block_rows) {
  const int64_t panel_blocks = (layout.panels() + panels - 1) / panels;
  return {.kernel = kernel,
          .grid = static_cast<int>(panel_blocks) *
                  ((rows + block_rows - 1) / block_rows)};
}

template <ElementType kDtype, int kPanels, int kGroups>
MatMulPlan PlanOf(const PackedLayout& layout, int32_t rows) {
  using Shape = MatMulShape<kDtype, kPanels, kGroups>;
  MatMulPlan plan;
  plan.product = LaunchOf({.kernel = MatMulPanels<Shape>,
                           .threads = kMatMulThreads,
                           .shared_bytes = Shape::kSharedBytes},
                          layout, kPanels, rows, kGroups * kGroupRows);
  return plan;
}

void AddSplit(const PackedLayout& layout, int32_t rows, MatMulPlan* plan) {
  const int64_t blocks = SplitGroups(rows) * SplitBlocks(layout);
  plan->split = {
      .kernel = {.kernel = SplitRows, .threads = kMatMulThreads},
      .grid = static_cast<int>((blocks + kMatMulWarps - 1) / kMatMulWarps)};
  plan->split_bytes = blocks * SplitBlockBytes(layout.dtype);
}

template <ElementType kDtype>
MatMulPlan PlanOf(const PackedLayout& layout, int32_t rows,
                  int multiprocessors) {
  if (rows <= 8) return PlanOf<kDtype, 2, 1>(layout, rows);
  if (rows <= 16) return PlanOf<kDtype, 2, 2>(layout, rows);
  MatMulPlan plan;
  if (rows > 32) {
    plan.product = TilesFor(layout, rows, multiprocessors);
  } else if (layout.panels() < int64_t{4} * multiprocessors) {
    plan = PlanOf<kDtype, 2, 4>(layout, rows);
  } else {
    plan = PlanOf<kDtype, 4, 4>(layout, rows);
  }
  AddSplit(layout, rows, &plan);
  return plan;
}

}  // namespace

MatMulPlan PlanMatMul(const PackedLayout& layout, int32_t rows,
                      int multiprocessors) {
  switch (layout.dtype) {
    case ElementType::kF16:
      return PlanOf<ElementType::kF16>(layout, rows, multiprocessors);
    case ElementType::kBf16:
      return PlanOf<ElementType::kBf16>(layout, rows, multiprocessors);
    case ElementType::kQ8_0:
      return PlanOf<ElementType::kQ8_0>(layout, rows, multiprocessors);
    case ElementType::kQ4_1:
      return PlanOf<ElementType::kQ4_1>(layout, rows, multiprocessors);
    default:
      break;
  }
  MatMulPlan plan;
  plan.product = LaunchOf({.kernel = MatMulFloats, .threads = kMatMulThreads},
                          layout, kFloatPanels, rows, kGroupRows);
  return plan;
}

}  // namespace headcount::cuda
