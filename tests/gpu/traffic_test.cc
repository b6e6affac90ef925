// What the kernels move and how they read shared memory, as the emulator
// counts it.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/cuda/matmul_kernels.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/gpu/attention_world.h"
#include "tests/gpu/device.h"
#include "tests/gpu/device_simt.h"

namespace headcount::gpu {
namespace {

struct Traffic {
  double bytes = 0;  // of global memory
  double floor = 0;
  double passes_per_matrix = 0;
};

Traffic TakeTraffic() {
  const simt::Counters counters = TakeCounters();
  return {.bytes = 32.0 * static_cast<double>(counters.sectors_moved),
          .passes_per_matrix = static_cast<double>(counters.matrix_passes) /
                               static_cast<double>(counters.matrices)};
}

Traffic Measure(const AttentionCase& attention_case) {
  const AttentionWorld world(attention_case);
  TakeCounters();
  EXPECT_LT(world.RelativeError(), 1e-2);
  Traffic traffic = TakeTraffic();
  traffic.floor = static_cast<double>(world.FloorBytes());
  return traffic;
}

AttentionCase Decode(const std::vector<int>& groups, KvDtype dtype) {
  return {.groups = groups,
          .head_dim = 128,
          .dtype = dtype,
          .sequences = {{300, 1}, {511, 1}},
          .activation = cuda::Activation::kBf16,
          .workers = 1};
}

TEST(TrafficTest, DecodeMovesWhatItMust) {
  for (const KvDtype dtype :
       {KvDtype::kBf16, KvDtype::kFp8E4m3, KvDtype::kInt8, KvDtype::kInt4}) {
    const Traffic traffic = Measure(Decode({4, 4, 4, 4}, dtype));
    EXPECT_GE(traffic.bytes, traffic.floor) << KvDtypeName(dtype);
    EXPECT_LE(traffic.bytes, 1.05 * traffic.floor) << KvDtypeName(dtype);
  }
}

TEST(TrafficTest, HalfTheKvHeadsMoveHalf) {
  const Traffic whole = Measure(Decode({4, 4, 4, 4}, KvDtype::kBf16));
  const Traffic half = Measure(Decode({4, 4}, KvDtype::kBf16));
  EXPECT_NEAR(half.bytes / whole.bytes, 0.5, 0.01);
}

TEST(TrafficTest, NoBankConflicts) {
  for (const KvDtype dtype :
       {KvDtype::kBf16, KvDtype::kFp8E4m3, KvDtype::kInt4}) {
    for (const int head_dim : {32, 64, 80, 96, 128, 256}) {
      for (const int rows : {1, 40}) {
        const Traffic traffic = Measure({.groups = {3, 1},
                                         .head_dim = head_dim,
                                         .dtype = dtype,
                                         .sequences = {{70, rows}}});
        EXPECT_EQ(traffic.passes_per_matrix, 1.0)
            << KvDtypeName(dtype) << " head_dim " << head_dim << " rows "
            << rows;
      }
    }
  }
}

// 256 rows and outputs. What is multiplied does not matter.
Traffic MeasureProduct(const cuda::PackedLayout& layout,
                       const cuda::MatMulPlan& plan) {
  constexpr int32_t kRows = 256;
  const DeviceArray<std::byte> weights(static_cast<size_t>(layout.bytes()));
  const DeviceArray<float> x(static_cast<size_t>(kRows * layout.cols));
  const DeviceArray<float> out(static_cast<size_t>(kRows * layout.rows));
  const DeviceArray<std::byte> split(static_cast<size_t>(plan.split_bytes));
  const cuda::MatMulParams params{.weights = weights.data(),
                                  .layout = layout,
                                  .x = x.data(),
                                  .out = out.data(),
                                  .rows = kRows,
                                  .split = split.data()};
  TheDevice().Launch(plan.split.kernel, plan.split.grid, params);
  TakeCounters();
  TheDevice().Launch(plan.product.kernel, plan.product.grid, params);
  return TakeTraffic();
}

// Weights once for each 128 or 64 rows, x once for each 128 or 64 outputs.
TEST(TrafficTest, TilesOfProductsShareWhatTheyCopy) {
  constexpr int kTiles = 256 / 128;  // of outputs, or of rows
  for (const ElementType dtype : {ElementType::kF16, ElementType::kBf16,
                                  ElementType::kQ8_0, ElementType::kQ4_1}) {
    SCOPED_TRACE(ElementTypeName(dtype));
    const cuda::PackedLayout layout{.dtype = dtype, .rows = 256, .cols = 256};
    // Of 4 bits, a step takes every other 16 bytes of a stage's scales, which
    // are half of what memory gives.
    const int64_t again = dtype == ElementType::kQ4_1 ? layout.bytes() / 5 : 0;
    const bool is_flat = cuda::StageCols(dtype) > cuda::kBlockCols;
    const auto expect = [&](int multiprocessors, int row_tiles,
                            int output_tiles) {
      const cuda::MatMulPlan plan =
          cuda::PlanMatMul(layout, 256, multiprocessors);
      EXPECT_EQ(plan.product.grid, row_tiles * output_tiles);
      const Traffic traffic = MeasureProduct(layout, plan);
      EXPECT_EQ(traffic.bytes,
                static_cast<double>(row_tiles * (layout.bytes() + again) +
                                    output_tiles * plan.split_bytes));
      EXPECT_EQ(traffic.passes_per_matrix, 1.0);
    };
    expect(/*multiprocessors=*/1, is_flat ? 2 * kTiles : kTiles, kTiles);
    expect(/*multiprocessors=*/1000, 2 * kTiles, 2 * kTiles);
  }
}

}  // namespace
}  // namespace headcount::gpu
