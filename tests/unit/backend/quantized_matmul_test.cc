// Products with weights that stay quantised: Pack with Precision::kFast, and
// MatMul over what it made.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "backend/cpu/matmul.h"
#include "backend/cpu/packed_matrix.h"
#include "gtest/gtest.h"
#include "tests/unit/backend/quantized_weights.h"
#include "tests/unit/backend/random_floats.h"
#include "tests/unit/backend/simd_targets.h"

namespace headcount {
namespace {

constexpr ElementType kTypes[] = {ElementType::kQ8_0, ElementType::kQ4_0,
                                  ElementType::kQ4_1, ElementType::kQ5_0,
                                  ElementType::kQ5_1, ElementType::kQ4_K,
                                  ElementType::kQ5_K, ElementType::kQ6_K};

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

size_t Index(int64_t i) { return static_cast<size_t>(i); }

// A tensor as a file has it, and its exact values.
struct Tensor {
  Tensor(TestRandom& random, ElementType element_type, int64_t r, int64_t c)
      : type(element_type),
        rows(r),
        cols(c),
        bytes(RandomQuantizedWeights(random, type, rows * cols)),
        values(Index(rows * cols)) {
    Dequantize(type, bytes.data(), 0, rows * cols, values.data());
  }

  // Rows [first, first + count), all columns.
  MatrixPiece Rows(int64_t first, int64_t count) const {
    return {.data = bytes.data() + ElementBytes(type, first * cols),
            .dtype = type,
            .stride = cols,
            .rows = count,
            .cols = cols};
  }
  MatrixPiece Columns(int64_t first, int64_t count) const {
    MatrixPiece piece = Rows(0, rows);
    piece.first_col = first;
    piece.cols = count;
    return piece;
  }

  ElementType type;
  int64_t rows;
  int64_t cols;
  std::vector<std::byte> bytes;
  std::vector<float> values;  // [rows, cols]
};

MatrixSource Whole(const Tensor& tensor) {
  return {.rows = tensor.rows,
          .cols = tensor.cols,
          .pieces = {tensor.Rows(0, tensor.rows)}};
}

std::unique_ptr<PackedMatrix> PackOrDie(
    const MatrixSource& source, Precision precision = Precision::kFast) {
  ThreadPool pool(2);
  auto matrix = PackedMatrix::Create(source, precision, &pool);
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  return *std::move(matrix);
}

std::vector<float> Multiply(const PackedMatrix& w, const float* x, int64_t rows,
                            int threads = 1, const float* bias = nullptr) {
  ThreadPool pool(threads);
  MatMulWorkspace workspace;
  std::vector<float> out(Index(rows * w.rows()));
  MatMul({.w = &w, .x = x, .rows = rows, .bias = bias, .out = out.data()},
         &workspace, &pool);
  return out;
}

// x with each block of 32 columns rounded to multiples of its largest / 127.
// [rows, cols]
std::vector<double> Rounded(const std::vector<float>& x, int64_t cols) {
  std::vector<double> rounded(x.size());
  for (size_t row = 0; row < x.size(); row += Index(cols)) {
    for (int64_t begin = 0; begin < cols; begin += 32) {
      const int64_t end = std::min(begin + 32, cols);
      float largest = 0;
      for (int64_t i = begin; i < end; ++i) {
        largest = std::max(largest, std::abs(x[row + Index(i)]));
      }
      if (largest == 0) continue;
      const float inverse = 127.0f / largest;
      for (int64_t i = begin; i < end; ++i) {
        rounded[row + Index(i)] =
            double{std::nearbyint(x[row + Index(i)] * inverse)} *
            double{largest / 127.0f};
      }
    }
  }
  return rounded;
}

// The weights at rest. [rows, cols]
std::vector<float> AtRest(const PackedMatrix& w) {
  std::vector<float> values(Index(w.rows() * w.cols()));
  for (int64_t row = 0; row < w.rows(); ++row) {
    w.CopyRow(row, values.data() + row * w.cols());
  }
  return values;
}

// The only error left is that of two roundings a block, of a sum no larger than
// what the magnitudes add up to: at 4 bits those of scale * 15 and the minimum,
// at most 4 times the largest weight of the block together.
void ExpectProductIsRight(const PackedMatrix& w, int64_t rows,
                          TestRandom& random) {
  const int64_t cols = w.cols();
  const std::vector<float> weights = AtRest(w);
  const std::vector<float> x = RandomFloats(random, rows * cols);
  const std::vector<double> rounded = Rounded(x, cols);
  const std::vector<float> bias = RandomFloats(random, w.rows());
  const std::vector<float> out =
      Multiply(w, x.data(), rows, /*threads=*/3, bias.data());
  const auto blocks = static_cast<double>((cols + 31) / 32);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < w.rows(); ++n) {
      const float* weight = weights.data() + n * cols;
      double sum = bias[Index(n)];
      double magnitude = std::abs(sum);
      for (int64_t k = 0; k < cols; ++k) {
        const double value = rounded[Index(r * cols + k)];
        sum += value * weight[k];
        const float* block = weight + k / 32 * 32;
        const int64_t length = std::min<int64_t>(32, cols - k / 32 * 32);
        float largest = 0;
        for (int64_t i = 0; i < length; ++i) {
          largest = std::max(largest, std::abs(block[i]));
        }
        magnitude += 4.0 * largest * std::abs(value);
      }
      ASSERT_NEAR(out[Index(r * w.rows() + n)], sum,
                  (2 * blocks + 2) * 0x1p-24 * magnitude)
          << "row " << r << " output " << n << " of " << rows << " x "
          << w.rows() << " x " << cols;
    }
  }
}

TEST(QuantizedMatrixTest, KeepsTheValuesOfTheFile) {
  TestRandom random(1);
  for (const ElementType type : kTypes) {
    SCOPED_TRACE(ElementTypeName(type));
    const Tensor tensor(random, type, 70, 512);
    const auto w = PackOrDie(Whole(tensor));
    const bool four = type == ElementType::kQ4_0 ||
                      type == ElementType::kQ4_1 || type == ElementType::kQ4_K;
    EXPECT_EQ(w->dtype(), four ? ElementType::kQ4_1 : ElementType::kQ8_0);
    // 70 rows are three panels of 32.
    EXPECT_EQ(w->bytes(), 96 * 512 / 32 * (four ? 20 : 34));
    const bool exact = type == ElementType::kQ4_0 ||
                       type == ElementType::kQ4_1 ||
                       type == ElementType::kQ8_0 || type == ElementType::kQ5_0;
    const std::vector<float> at_rest = AtRest(*w);
    for (size_t begin = 0; begin < at_rest.size(); begin += 32) {
      float largest = 0;
      for (size_t i = begin; i < begin + 32; ++i) {
        largest = std::max(largest, std::abs(tensor.values[i]));
      }
      // kQ4_K: scale * 15 and the minimum keep 11 bits, together at most four
      // times the largest here; the others: half a 127th, and the scale's 11
      // bits.
      const float bound = exact                        ? 0
                          : type == ElementType::kQ4_K ? 4 * 0x1p-11f * largest
                                                       : largest / 253;
      for (size_t i = begin; i < begin + 32; ++i) {
        ASSERT_NEAR(at_rest[i], tensor.values[i], bound) << i;
      }
    }
  }
}

TEST(QuantizedMatrixTest, ExactPrecisionDequantisesToFloat32) {
  TestRandom random(2);
  for (const ElementType type : kTypes) {
    SCOPED_TRACE(ElementTypeName(type));
    const Tensor tensor(random, type, 33, 256);
    const auto w = PackOrDie(Whole(tensor), Precision::kExact);
    EXPECT_EQ(w->dtype(), ElementType::kF32);
    EXPECT_EQ(AtRest(*w), tensor.values);
  }
}

TEST(QuantizedMatrixTest, TheWidestPieceDecides) {
  TestRandom random(3);
  const Tensor q(random, ElementType::kQ4_K, 40, 256);
  const Tensor v(random, ElementType::kQ6_K, 24, 256);
  MatrixSource source{.rows = 64, .cols = 256, .pieces = {}};
  source.pieces = {q.Rows(0, 40), v.Rows(0, 24)};
  source.pieces[1].row = 40;
  EXPECT_EQ(PackOrDie(source)->dtype(), ElementType::kQ8_0);
  const std::vector<float> floats(24 * 256, 0.5f);
  source.pieces[1].dtype = ElementType::kF32;
  source.pieces[1].data = reinterpret_cast<const std::byte*>(floats.data());
  const auto w = PackOrDie(source);
  EXPECT_EQ(w->dtype(), ElementType::kF32);
  std::vector<float> row(256);
  w->CopyRow(39, row.data());
  EXPECT_TRUE(std::equal(row.begin(), row.end(), &q.values[39 * 256]));
  w->CopyRow(40, row.data());
  EXPECT_EQ(row, std::vector<float>(256, 0.5f));
}

// Rows of kept heads: runs out of a larger tensor.
TEST(QuantizedMatrixTest, KeepsRunsOfRows) {
  TestRandom random(4);
  const Tensor tensor(random, ElementType::kQ4_1, 200, 64);
  MatrixSource source{.rows = 75, .cols = 64, .pieces = {}};
  source.pieces = {tensor.Rows(20, 30), tensor.Rows(100, 45)};
  source.pieces[1].row = 30;
  const auto w = PackOrDie(source);
  EXPECT_EQ(w->dtype(), ElementType::kQ4_1);
  const std::vector<float> at_rest = AtRest(*w);
  EXPECT_TRUE(
      std::equal(&at_rest[0], &at_rest[30 * 64], &tensor.values[20 * 64]));
  EXPECT_TRUE(std::equal(&at_rest[30 * 64], &at_rest[75 * 64],
                         &tensor.values[100 * 64]));
}

// Columns of heads 1 and 3 of four, as in an output projection.
TEST(QuantizedMatrixTest, KeepsRunsOfColumnsWhichMayCutBlocks) {
  TestRandom random(5);
  for (const ElementType type : kTypes) {
    for (const int64_t head_dim : {64, 80, 48, 8}) {
      SCOPED_TRACE(testing::Message()
                   << ElementTypeName(type) << " head_dim " << head_dim);
      const int64_t all = (4 * head_dim + 255) / 256 * 256;
      const Tensor tensor(random, type, 40, all);
      MatrixSource source{.rows = 40, .cols = 2 * head_dim, .pieces = {}};
      source.pieces = {tensor.Columns(head_dim, head_dim),
                       tensor.Columns(3 * head_dim, head_dim)};
      source.pieces[1].col = head_dim;
      const auto w = PackOrDie(source);
      const bool four = type == ElementType::kQ4_0 ||
                        type == ElementType::kQ4_1 ||
                        type == ElementType::kQ4_K;
      EXPECT_EQ(w->dtype(), four && head_dim == 64 ? ElementType::kQ4_1
                                                   : ElementType::kQ8_0);
      float largest = 0;
      for (const float value : tensor.values) {
        largest = std::max(largest, std::abs(value));
      }
      const std::vector<float> at_rest = AtRest(*w);
      for (int64_t row = 0; row < 40; ++row) {
        for (int64_t col = 0; col < 2 * head_dim; ++col) {
          const int64_t from =
              col < head_dim ? col + head_dim : col + 2 * head_dim;
          ASSERT_NEAR(at_rest[Index(row * 2 * head_dim + col)],
                      tensor.values[Index(row * all + from)], largest / 253)
              << row << ", " << col;
        }
      }
      ForEachSimdTarget([&] { ExpectProductIsRight(*w, /*rows=*/5, random); },
                        HWY_AVX3_DL);
    }
  }
}

TEST(QuantizedMatMulTest, AgreesWithDoublePrecisionForEveryType) {
  ForEachSimdTarget(
      [] {
        TestRandom random(6);
        for (const ElementType type : kTypes) {
          SCOPED_TRACE(ElementTypeName(type));
          const Tensor tensor(random, type, 83, 768);
          ExpectProductIsRight(*PackOrDie(Whole(tensor)), /*rows=*/3, random);
        }
      },
      HWY_AVX3_DL);
}

TEST(QuantizedMatMulTest, AgreesWithDoublePrecisionForEveryNumberOfRows) {
  ForEachSimdTarget(
      [] {
        TestRandom random(7);
        for (const ElementType type :
             {ElementType::kQ4_1, ElementType::kQ8_0}) {
          SCOPED_TRACE(ElementTypeName(type));
          const Tensor tensor(random, type, 47, 96);
          const auto w = PackOrDie(Whole(tensor));
          for (int64_t rows = 1; rows <= 33; ++rows) {
            ExpectProductIsRight(*w, rows, random);
          }
        }
      },
      HWY_AVX3_DL);
}

// More columns than a group of blocks has, and more rows than a task.
TEST(QuantizedMatMulTest, AgreesWithDoublePrecisionForOddSizes) {
  ForEachSimdTarget(
      [] {
        TestRandom random(8);
        for (int i = 0; i < 12; ++i) {
          const ElementType type =
              i % 2 == 0 ? ElementType::kQ4_0 : ElementType::kQ8_0;
          const Tensor tensor(random, type, RandomInt(random, 1, 200),
                              32 * RandomInt(random, 1, 80));
          ExpectProductIsRight(*PackOrDie(Whole(tensor)),
                               RandomInt(random, 1, 60), random);
        }
      },
      HWY_AVX3_DL);
}

// Rounding x to steps of s makes an error of variance s^2 / 12 an element.
TEST(QuantizedMatMulTest, IsAsFarFromFloat32AsRoundingTheRowsMakesIt) {
  TestRandom random(9);
  for (const ElementType type : {ElementType::kQ4_1, ElementType::kQ8_0}) {
    SCOPED_TRACE(ElementTypeName(type));
    const Tensor tensor(random, type, 256, 512);
    const int64_t rows = 16;
    const std::vector<float> x = RandomFloats(random, rows * 512);
    const auto fast = PackOrDie(Whole(tensor));
    const auto exact = PackOrDie(Whole(tensor), Precision::kExact);
    const std::vector<float> near = Multiply(*fast, x.data(), rows);
    const std::vector<float> reference = Multiply(*exact, x.data(), rows);
    double error = 0;
    double expected = 0;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t n = 0; n < 256; ++n) {
        double variance = 0;
        for (int64_t k = 0; k < 512; ++k) {
          const double step = 1.0 / 127;  // of uniform x, about
          const double weight = tensor.values[Index(n * 512 + k)];
          variance += weight * weight * step * step / 12;
        }
        const auto i = Index(r * 256 + n);
        const double difference = double{near[i]} - reference[i];
        EXPECT_LT(std::abs(difference), 6 * std::sqrt(variance));
        error += difference * difference;
        expected += variance;
      }
    }
    EXPECT_GT(error, 0.7 * expected);
    EXPECT_LT(error, 1.1 * expected);
  }
}

TEST(QuantizedMatMulTest, ARowHasTheSameBitsAloneInCompanyAndOnEveryTarget) {
  TestRandom random(10);
  for (const ElementType type : {ElementType::kQ4_1, ElementType::kQ8_0}) {
    SCOPED_TRACE(ElementTypeName(type));
    const int64_t inputs = 1120;
    const int64_t outputs = 200;
    const int64_t rows = 70;
    const Tensor tensor(random, type, outputs, inputs);
    const auto w = PackOrDie(Whole(tensor));
    const std::vector<float> x = RandomFloats(random, rows * inputs);
    std::vector<float> alone;
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> out = Multiply(*w, x.data() + r * inputs, 1);
      alone.insert(alone.end(), out.begin(), out.end());
    }
    ForEachSimdTarget(
        [&] {
          // Plain C++ is slow.
          const bool plain = hwy::SupportedTargets() == HWY_STATIC_TARGET;
          for (int64_t count = 1; count <= rows; count += plain ? 10 : 1) {
            const int64_t first = RandomInt(random, 0, int(rows - count));
            const std::vector<float> out = Multiply(
                *w, x.data() + first * inputs, count, count % 2 == 0 ? 3 : 1);
            ASSERT_EQ(std::memcmp(out.data(), alone.data() + first * outputs,
                                  out.size() * sizeof(float)),
                      0)
                << count << " rows from " << first;
          }
        },
        HWY_AVX3_DL);
  }
}

// Weights and rows at their limits, where 16-bit sums are fullest.
TEST(QuantizedMatMulTest, TheLargestIntegersDoNotSaturate) {
  struct Case {
    ElementType type;
    std::byte bytes;  // of all weights
    float weight;
  };
  const Case cases[] = {
      {ElementType::kQ4_1, std::byte{0xFF}, 15 - 3},  // minimum -3
      {ElementType::kQ4_0, std::byte{0x00}, -8},
      {ElementType::kQ4_0, std::byte{0xFF}, 7},
      {ElementType::kQ8_0, std::byte{0x80}, -128},
      {ElementType::kQ8_0, std::byte{0x7F}, 127},
      {ElementType::kQ8_0, std::byte{0x00}, 0},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << ElementTypeName(c.type) << " "
                                    << std::to_integer<int>(c.bytes));
    TestRandom random(11);
    Tensor tensor(random, c.type, 32, 64);
    std::fill(tensor.bytes.begin(), tensor.bytes.end(), c.bytes);
    for (size_t i = 0; i < tensor.bytes.size();
         i += Index(BlockOf(c.type).bytes)) {
      PutHalf(1, &tensor.bytes[i]);
      if (c.type == ElementType::kQ4_1) PutHalf(-3, &tensor.bytes[i + 2]);
    }
    const auto w = PackOrDie(Whole(tensor));
    for (const float value : {127.0f, -127.0f}) {
      const std::vector<float> x(64 * 5, value);
      ForEachSimdTarget(
          [&] {
            const std::vector<float> expected(32 * 5, 64 * value * c.weight);
            EXPECT_EQ(Multiply(*w, x.data(), 5), expected);
          },
          HWY_AVX3_DL);
    }
  }
}

TEST(QuantizedMatMulTest, WhatIsNotFiniteStaysInItsRow) {
  TestRandom random(12);
  const Tensor four(random, ElementType::kQ4_1, 40, 96);
  const Tensor eight(random, ElementType::kQ8_0, 40, 96);
  for (const Tensor* tensor : {&four, &eight}) {
    const auto w = PackOrDie(Whole(*tensor));
    ForEachSimdTarget(
        [&] {
          std::vector<float> x = RandomFloats(random, 4 * 96);
          const std::vector<float> before = Multiply(*w, x.data(), 4);
          x[96 + 40] = kNaN;
          x[2 * 96 + 3] = -kInfinity;
          std::fill_n(&x[3 * 96], 96, 1e-40f);
          const std::vector<float> out = Multiply(*w, x.data(), 4);
          for (size_t n = 0; n < 40; ++n) {
            EXPECT_EQ(out[n], before[n]);
            EXPECT_TRUE(std::isnan(out[40 + n]));
            EXPECT_TRUE(std::isnan(out[80 + n]));
            EXPECT_EQ(out[120 + n], 0);
          }
        },
        HWY_AVX3_DL);
  }
}

// A damaged file must not look like a working model.
TEST(QuantizedMatMulTest, AScaleThatIsNotFiniteReachesTheOutput) {
  TestRandom random(13);
  for (const ElementType type : kTypes) {
    SCOPED_TRACE(ElementTypeName(type));
    Tensor tensor(random, type, 33, 256);
    const size_t at = type == ElementType::kQ6_K ? 208 : 0;
    PutHalf(kNaN, &tensor.bytes[at]);
    const std::vector<float> x = RandomFloats(random, 256);
    const std::vector<float> out =
        Multiply(*PackOrDie(Whole(tensor)), x.data(), 1);
    EXPECT_TRUE(std::isnan(out[0]));
    for (size_t n = 1; n < out.size(); ++n) EXPECT_TRUE(std::isfinite(out[n]));
  }
}

}  // namespace
}  // namespace headcount
