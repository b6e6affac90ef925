// Products on the tiles of AMX beside those of vectors.
#include "backend/cpu/amx_matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "hwy/targets.h"
#include "tests/unit/backend/quantized_products.h"
#include "tests/unit/backend/random_floats.h"

namespace headcount {
namespace {

class AmxMatMulTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasAmx())
      GTEST_SKIP() << "no AMX here: not in the CPU, not granted "
                      "by the kernel, or not in this build";
  }
};

struct Product {
  const PackedMatrix* w = nullptr;
  const std::vector<float>* x = nullptr;
  const std::vector<float>* bias = nullptr;
  int threads = 1;
};

std::vector<float> Multiply(const Product& product, bool amx,
                            MatMulWorkspace* workspace) {
  ThreadPool pool(product.threads);
  const PackedMatrix& w = *product.w;
  const int64_t rows = static_cast<int64_t>(product.x->size()) / w.cols();
  std::vector<float> out(Index(rows * w.rows()), 0.25f);
  workspace->amx = amx;
  MatMul({.w = &w,
          .x = product.x->data(),
          .rows = rows,
          .bias = product.bias->data(),
          .mode = Backend::MatMulMode::kAdd,
          .out = out.data()},
         workspace, &pool);
  return out;
}

void ExpectSameBits(const Product& product, MatMulWorkspace* workspace) {
  const std::vector<float> expected = Multiply(product, false, workspace);
  const std::vector<float> out = Multiply(product, true, workspace);
  ASSERT_EQ(
      std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0)
      << product.x->size() / Index(product.w->cols()) << " x "
      << product.w->rows() << " x " << product.w->cols() << ", "
      << product.w->input_bytes() << " bytes, " << product.threads
      << " threads";
}

TEST_F(AmxMatMulTest, EveryNumberOfRowsHasTheBitsOfVectors) {
  TestRandom random(21);
  const Tensor tensor(random, ElementType::kQ4_1, 70, 9 * 32);
  const std::vector<float> bias = RandomFloats(random, tensor.rows);
  MatMulWorkspace workspace;
  for (const bool wide : {false, true}) {
    const auto w = PackOrDie(Whole(tensor, wide));
    for (int64_t rows = 1; rows <= 150; ++rows) {
      const std::vector<float> x = RandomFloats(random, rows * tensor.cols);
      ExpectSameBits({.w = w.get(), .x = &x, .bias = &bias}, &workspace);
    }
  }
}

// More rows than a task, groups of unequal sizes, a panel that is not full.
TEST_F(AmxMatMulTest, EveryShapeHasTheBitsOfVectors) {
  TestRandom random(22);
  MatMulWorkspace workspace;
  for (int i = 0; i < 60; ++i) {
    const ElementType type = i % 3 == 0   ? ElementType::kQ4_0
                             : i % 3 == 1 ? ElementType::kQ4_1
                                          : ElementType::kQ4_K;
    const int64_t unit = type == ElementType::kQ4_K ? 256 : 32;
    const Tensor tensor(random, type, RandomInt(random, 1, 200),
                        unit * RandomInt(random, 1, int(1600 / unit)));
    const auto w = PackOrDie(Whole(tensor, i % 2 == 0));
    const std::vector<float> x =
        RandomFloats(random, RandomInt(random, 16, 300) * tensor.cols);
    const std::vector<float> bias = RandomFloats(random, tensor.rows);
    ExpectSameBits({.w = w.get(), .x = &x, .bias = &bias, .threads = 1 + i % 4},
                   &workspace);
  }
}

// Where float sums of integers come nearest to 2^24.
TEST_F(AmxMatMulTest, TheLargestIntegersAreExact) {
  TestRandom random(23);
  Tensor tensor(random, ElementType::kQ4_1, 32, 96);
  std::fill(tensor.bytes.begin(), tensor.bytes.end(), std::byte{0xFF});
  for (size_t i = 0; i < tensor.bytes.size();
       i += Index(BlockOf(tensor.type).bytes)) {
    PutHalf(1, &tensor.bytes[i]);
    PutHalf(0, &tensor.bytes[i + 2]);
  }
  for (const bool wide : {false, true}) {
    const auto w = PackOrDie(Whole(tensor, wide));
    const float largest = LargestInput(*w);
    for (const float value : {largest, -largest, largest - 1}) {
      std::vector<float> x(Index(40 * tensor.cols), value);
      for (size_t i = 0; i < x.size(); i += 32) x[i] = largest;
      MatMulWorkspace workspace;
      const std::vector<float> bias(Index(tensor.rows), 0.0f);
      ExpectSameBits({.w = w.get(), .x = &x, .bias = &bias}, &workspace);
    }
  }
}

TEST_F(AmxMatMulTest, WhatIsNotFiniteStaysInItsRow) {
  TestRandom random(24);
  const Tensor tensor(random, ElementType::kQ4_1, 40, 96);
  const std::vector<float> bias(Index(tensor.rows), 0.0f);
  MatMulWorkspace workspace;
  for (const bool wide : {false, true}) {
    const auto w = PackOrDie(Whole(tensor, wide));
    std::vector<float> x = RandomFloats(random, 40 * 96);
    const Product product = {.w = w.get(), .x = &x, .bias = &bias};
    const std::vector<float> before = Multiply(product, true, &workspace);
    x[17 * 96 + 40] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> out = Multiply(product, true, &workspace);
    for (size_t i = 0; i < out.size(); ++i) {
      if (i / 40 == 17) {
        EXPECT_TRUE(std::isnan(out[i])) << i;
      } else {
        EXPECT_EQ(out[i], before[i]) << i;
      }
    }
  }
}

TEST_F(AmxMatMulTest, IsNotEnteredBelowTheTargetThatHasIt) {
  hwy::SetSupportedTargetsForTest(HWY_AVX3);
  EXPECT_FALSE(HasAmx());
  hwy::SetSupportedTargetsForTest(0);
  EXPECT_TRUE(HasAmx());
}

// Eight bits, and too few rows to unpack weights for.
TEST_F(AmxMatMulTest, TakesManyRowsOfFourBits) {
  TestRandom random(25);
  const Tensor four(random, ElementType::kQ4_1, 32, 32);
  const Tensor eight(random, ElementType::kQ8_0, 32, 32);
  for (const bool wide : {false, true}) {
    const auto w = PackOrDie(Whole(four, wide));
    EXPECT_TRUE(AmxIsBetter(*w, 32));
    EXPECT_FALSE(AmxIsBetter(*w, 31));
  }
  EXPECT_FALSE(AmxIsBetter(*PackOrDie(Whole(eight)), 512));
}

}  // namespace
}  // namespace headcount
