// Operations on rows, against the same ones in double precision.
#include "backend/cuda/row_kernels.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/gpu/device.h"
#include "tests/unit/backend/random_floats.h"

namespace headcount::gpu {
namespace {

using ::testing::ElementsAre;

// Cosines and sines of the CPU backend: products in float32, and then as exact
// as they come.
TEST(RopeTableKernelTest, IsThatOfTheCpuUpToLongContexts) {
  const std::vector<int32_t> positions = {0, 1, 17, 4095, 131071, 131072};
  std::vector<float> frequencies;
  for (int i = 0; i < 300; ++i) {
    frequencies.push_back(std::pow(10000.0f, -static_cast<float>(i) / 300));
  }
  constexpr float kScale = 1.25f;
  const DeviceArray<int32_t> device_positions(positions);
  const DeviceArray<float> inverse_frequency(frequencies);
  const DeviceArray<float> cos(positions.size() * frequencies.size());
  const DeviceArray<float> sin(positions.size() * frequencies.size());
  const auto kernel = cuda::FindRopeTableKernel();
  Launch(kernel.kernel, static_cast<int>(positions.size()), kernel.threads,
         kernel.shared_bytes,
         cuda::RopeTableParams{.positions = device_positions.data(),
                               .inverse_frequency = inverse_frequency.data(),
                               .cos = cos.data(),
                               .sin = sin.data(),
                               .rows = static_cast<int32_t>(positions.size()),
                               .half = static_cast<int32_t>(frequencies.size()),
                               .scale = kScale});
  const std::vector<float> cosines = cos.Read();
  const std::vector<float> sines = sin.Read();
  for (size_t i = 0; i < cosines.size(); ++i) {
    const float angle = static_cast<float>(positions[i / frequencies.size()]) *
                        frequencies[i % frequencies.size()];
    ASSERT_NEAR(cosines[i], std::cos(double{angle}) * kScale, 3e-7) << angle;
    ASSERT_NEAR(sines[i], std::sin(double{angle}) * kScale, 3e-7) << angle;
  }
}

TEST(RmsNormKernelTest, NormalisesRowsInPlace) {
  TestRandom random(1);
  constexpr int kRows = 3;
  for (const int cols : {1, 100, 896, 1500}) {
    const std::vector<float> x = RandomFloats(random, kRows * cols);
    const std::vector<float> weight = RandomFloats(random, cols);
    const DeviceArray<float> device_x(x);
    const DeviceArray<float> device_weight(weight);
    const auto kernel = cuda::FindRmsNormKernel();
    Launch(kernel.kernel, kRows, kernel.threads, kernel.shared_bytes,
           cuda::RmsNormParams{.x = device_x.data(),
                               .weight = device_weight.data(),
                               .out = device_x.data(),
                               .rows = kRows,
                               .cols = cols,
                               .epsilon = 1e-3f});
    const std::vector<float> out = device_x.Read();
    const auto width = static_cast<size_t>(cols);
    for (size_t row = 0; row < kRows; ++row) {
      double squares = 0;
      for (size_t i = 0; i < width; ++i) {
        squares += double{x[row * width + i]} * x[row * width + i];
      }
      const double rms = std::sqrt(squares / cols + double{1e-3f});
      for (size_t i = 0; i < width; ++i) {
        const double expected = x[row * width + i] / rms * weight[i];
        ASSERT_NEAR(out[row * width + i], expected, 1e-6) << row << ' ' << i;
      }
    }
  }
}

TEST(SwiGluKernelTest, MultipliesWithTheGate) {
  TestRandom random(2);
  constexpr int kRows = 3;
  for (const int width : {1, 37, 700}) {
    std::vector<float> x = RandomFloats(random, kRows * 2 * width);
    for (float& value : x) value *= 20;
    x[0] = -1000;  // 2^1443 is infinite
    const DeviceArray<float> device_x(x);
    const DeviceArray<float> out(static_cast<size_t>(kRows * width));
    const cuda::SwiGluParams params{
        .x = device_x.data(), .out = out.data(), .rows = kRows, .width = width};
    const auto kernel = cuda::FindSwiGluKernel();
    Launch(kernel.kernel, cuda::SwiGluGrid(params), kernel.threads,
           kernel.shared_bytes, params);
    const std::vector<float> products = out.Read();
    const auto columns = static_cast<size_t>(width);
    for (size_t i = 0; i < products.size(); ++i) {
      const size_t at = i / columns * 2 * columns + i % columns;
      const double gate = x[at];
      const double expected = gate / (1 + std::exp(-gate)) * x[at + columns];
      ASSERT_NEAR(products[i], expected, 1e-5 * std::abs(expected) + 1e-30)
          << i;
    }
  }
}

TEST(GatherRowsKernelTest, CopiesRowsInTheOrderOfTheIndices) {
  TestRandom random(3);
  constexpr size_t kCols = 301;
  const std::vector<float> x = RandomFloats(random, 5 * kCols);
  const std::vector<int32_t> indices = {4, 0, 4};
  const DeviceArray<float> device_x(x);
  const DeviceArray<int32_t> device_indices(indices);
  const DeviceArray<float> out(indices.size() * kCols);
  const auto kernel = cuda::FindGatherRowsKernel();
  Launch(kernel.kernel, static_cast<int>(indices.size()), kernel.threads,
         kernel.shared_bytes,
         cuda::GatherRowsParams{.x = device_x.data(),
                                .indices = device_indices.data(),
                                .out = out.data(),
                                .rows = static_cast<int32_t>(indices.size()),
                                .cols = kCols});
  const std::vector<float> rows = out.Read();
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSERT_EQ(rows[i],
              x[static_cast<size_t>(indices[i / kCols]) * kCols + i % kCols]);
  }
}

// Two layers of two heads, of which the second is gated; row 1 has no gates.
TEST(GateHeadsKernelTest, MultipliesHeadsOfRowsThatHaveGates) {
  const DeviceArray<float> context(std::vector<float>{1, 1, 2, 2,  //
                                                      3, 3, 4, 4,  //
                                                      5, 5, 6, 6});
  const DeviceArray<int64_t> row_gates(std::vector<int64_t>{4, -1, 0});
  const DeviceArray<float> gates(
      std::vector<float>{9, 9, 2, 0.5f, 9, 9, 0, 10});
  const auto kernel = cuda::FindGateHeadsKernel();
  Launch(kernel.kernel, 3, kernel.threads, kernel.shared_bytes,
         cuda::GateHeadsParams{.context = context.data(),
                               .row_gates = row_gates.data(),
                               .gates = gates.data(),
                               .first_gate = 2,
                               .rows = 3,
                               .query_heads = 2,
                               .head_dim = 2});
  EXPECT_THAT(context.Read(),
              ElementsAre(0, 0, 20, 20, 3, 3, 4, 4, 10, 10, 3, 3));
}

}  // namespace
}  // namespace headcount::gpu
