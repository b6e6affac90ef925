#include "backend/cpu/row_ops.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/cpu/rope_table.h"
#include "gtest/gtest.h"
#include "tests/unit/backend/random_floats.h"
#include "tests/unit/backend/simd_targets.h"

namespace headcount {
namespace {

TEST(RowOpsTest, RmsNormAgreesWithDoublePrecision) {
  ForEachSimdTarget([] {
    ThreadPool pool(3);
    for (const int64_t cols : {1, 7, 16, 33, 192, 576, 4097}) {
      TestRandom random(1);
      const int64_t rows = 19;
      std::vector<float> x = RandomFloats(random, rows * cols);
      const std::vector<float> weight = RandomFloats(random, cols);
      std::vector<float> out(x.size());
      const RmsNormOperands operands{.x = x.data(),
                                     .weight = weight.data(),
                                     .epsilon = 1e-5f,
                                     .rows = rows,
                                     .cols = cols,
                                     .out = out.data()};
      RmsNorm(operands, &pool);
      for (int64_t r = 0; r < rows; ++r) {
        double squares = 0;
        for (int64_t c = 0; c < cols; ++c) {
          const double value = x[static_cast<size_t>(r * cols + c)];
          squares += value * value;
        }
        const double inverse =
            1 / std::sqrt(squares / static_cast<double>(cols) + 1e-5);
        for (int64_t c = 0; c < cols; ++c) {
          const auto i = static_cast<size_t>(r * cols + c);
          const double expected =
              x[i] * inverse * weight[static_cast<size_t>(c)];
          ASSERT_NEAR(out[i], expected, 1e-6 * (1 + std::abs(expected)));
        }
      }
      // In place, one row at a time: the same bits.
      for (int64_t r = 0; r < rows; ++r) {
        float* row = x.data() + r * cols;
        RmsNorm({.x = row,
                 .weight = weight.data(),
                 .epsilon = 1e-5f,
                 .rows = 1,
                 .cols = cols,
                 .out = row},
                &pool);
      }
      EXPECT_EQ(x, out);
    }
  });
}

TEST(RowOpsTest, SwiGluAgreesWithDoublePrecisionOverTheWholeRange) {
  ForEachSimdTarget([] {
    ThreadPool pool(3);
    for (const int64_t width : {1, 5, 16, 512, 2001}) {
      TestRandom random(2);
      const int64_t rows = 21;
      std::vector<float> x = RandomFloats(random, rows * 2 * width);
      for (size_t i = 0; i < x.size(); ++i) x[i] *= i % 3 == 0 ? 100.0f : 5.0f;
      std::vector<float> out(static_cast<size_t>(rows * width));
      SwiGlu(x.data(), rows, width, out.data(), &pool);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < width; ++c) {
          const double gate = x[static_cast<size_t>(r * 2 * width + c)];
          const double up = x[static_cast<size_t>(r * 2 * width + width + c)];
          const double expected = gate / (1 + std::exp(-gate)) * up;
          // exp(-gate) turns the rounding of gate * log2(e) into a relative
          // error that grows with the gate.
          ASSERT_NEAR(out[static_cast<size_t>(r * width + c)], expected,
                      1e-6 * (1 + std::abs(gate)) * std::abs(expected) + 1e-30)
              << gate;
        }
      }
    }
  });
}

TEST(RowOpsTest, SwiGluOfNanIsNanAndOfLargeGatesIsFinite) {
  ForEachSimdTarget([] {
    ThreadPool pool(1);
    const float x[] = {
        std::numeric_limits<float>::quiet_NaN(), -1e30f, 1e30f, 1, 1, 1};
    float out[3];
    SwiGlu(x, 1, 3, out, &pool);
    EXPECT_TRUE(std::isnan(out[0]));
    EXPECT_NEAR(out[1], 0.0f, 1e-5f);
    EXPECT_EQ(out[2], 1e30f);
  });
}

TEST(RowOpsTest, EmbedCopiesRowsOfTheTableExactly) {
  ThreadPool pool(3);
  TestRandom random(3);
  const std::vector<float> table = RandomFloats(random, 77 * 50);
  MatrixSource source;
  source.rows = 77;
  source.cols = 50;
  source.pieces.push_back(
      {.data = reinterpret_cast<const std::byte*>(table.data()),
       .dtype = ElementType::kF32,
       .stride = 50,
       .rows = 77,
       .cols = 50});
  const auto packed = PackedMatrix::Create(source, Precision::kFast, &pool);
  ASSERT_TRUE(packed.ok());
  const std::vector<int32_t> tokens = {0, 76, 31, 32, 31, 5};
  std::vector<float> out(tokens.size() * 50);
  Embed(**packed, tokens, out.data(), &pool);
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_EQ(
        std::memcmp(&out[i * 50], &table[static_cast<size_t>(tokens[i]) * 50],
                    50 * sizeof(float)),
        0);
  }
}

TEST(RowOpsTest, GatherRowsTakesRowsInTheOrderAsked) {
  const float x[] = {0, 1, 10, 11, 20, 21};
  float out[6];
  GatherRows(x, {2, 0, 2}, 2, out);
  EXPECT_EQ(std::vector<float>(out, out + 6),
            (std::vector<float>{20, 21, 0, 1, 20, 21}));
}

// cos and sin of float32(position * inverse_frequency), which at position
// 131,071 is not the exact angle.
TEST(RopeTableTest, TheAngleIsRoundedToFloatBeforeTheCosine) {
  ThreadPool pool(2);
  Rope rope;
  rope.inverse_frequency = {1.0f, 0.31622776f};
  rope.scale = 1.5f;
  const std::vector<int32_t> positions = {0, 131071};
  RopeTable table;
  table.Compute(rope, positions, &pool);
  EXPECT_EQ(table.cos(0)[0], 1.5f);
  EXPECT_EQ(table.sin(0)[1], 0.0f);
  const float angle = 131071.0f * 0.31622776f;
  EXPECT_NEAR(table.cos(1)[1], 1.5 * std::cos(double{angle}), 1e-6);
  EXPECT_NEAR(table.sin(1)[1], 1.5 * std::sin(double{angle}), 1e-6);
  const double exact = 131071.0 * double{0.31622776f};
  EXPECT_GT(std::abs(std::cos(exact) - std::cos(double{angle})), 1e-4);
}

}  // namespace
}  // namespace headcount
