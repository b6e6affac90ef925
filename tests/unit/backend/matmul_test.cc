#include "backend/cpu/matmul.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "backend/cpu/packed_matrix.h"
#include "base/half.h"
#include "gtest/gtest.h"
#include "tests/unit/backend/random_floats.h"
#include "tests/unit/backend/simd_targets.h"

namespace headcount {
namespace {

void MatMul(const MatMulOperands& operands, ThreadPool* pool) {
  MatMulWorkspace workspace;
  headcount::MatMul(operands, &workspace, pool);
}

using Mode = Backend::MatMulMode;

constexpr ElementType kDtypes[] = {ElementType::kF32, ElementType::kF16,
                                   ElementType::kBf16};

// Weights as a file has them, and their exact values.
struct Weights {
  std::vector<std::byte> bytes;
  std::vector<float> values;  // [rows, cols]
};

Weights MakeWeights(TestRandom& random, int64_t count, ElementType dtype) {
  Weights weights;
  const size_t element = dtype == ElementType::kF32 ? 4 : 2;
  weights.values = RandomFloats(random, count);
  weights.bytes.resize(weights.values.size() * element);
  for (size_t i = 0; i < weights.values.size(); ++i) {
    float& value = weights.values[i];
    auto bits = std::bit_cast<uint32_t>(value);
    if (dtype == ElementType::kF16) {
      bits = HalfFromFloat(value);
      value = FloatFromHalf(static_cast<uint16_t>(bits));
    } else if (dtype == ElementType::kBf16) {
      bits >>= 16;
      value = FloatFromBfloat16(static_cast<uint16_t>(bits));
    }
    std::memcpy(&weights.bytes[i * element], &bits, element);
  }
  return weights;
}

MatrixSource WholeSource(const Weights& weights, ElementType dtype,
                         int64_t rows, int64_t cols) {
  MatrixSource source;
  source.rows = rows;
  source.cols = cols;
  source.pieces.push_back({.data = weights.bytes.data(),
                           .dtype = dtype,
                           .stride = cols,
                           .rows = rows,
                           .cols = cols});
  return source;
}

std::unique_ptr<PackedMatrix> PackOrDie(const MatrixSource& source,
                                        ThreadPool* pool) {
  absl::StatusOr<std::unique_ptr<PackedMatrix>> matrix =
      PackedMatrix::Create(source, Precision::kFast, pool);
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  return *std::move(matrix);
}

// One product whose result is compared with double precision.
struct Product {
  int64_t rows = 1;
  int64_t outputs = 1;
  int64_t inputs = 1;
  ElementType dtype = ElementType::kF32;
  bool bias = false;
  Mode mode = Mode::kStore;
};

void ExpectProductIsRight(const Product& p, uint32_t seed) {
  TestRandom random(seed);
  ThreadPool pool(3);
  const Weights weights = MakeWeights(random, p.outputs * p.inputs, p.dtype);
  const auto w =
      PackOrDie(WholeSource(weights, p.dtype, p.outputs, p.inputs), &pool);
  const std::vector<float> x = RandomFloats(random, p.rows * p.inputs);
  const std::vector<float> bias = RandomFloats(random, p.outputs);
  const std::vector<float> old = RandomFloats(random, p.rows * p.outputs);
  std::vector<float> out = old;
  // What lies behind the output must stay as it is.
  out.push_back(42.0f);
  MatMul({.w = w.get(),
          .x = x.data(),
          .rows = p.rows,
          .bias = p.bias ? bias.data() : nullptr,
          .mode = p.mode,
          .out = out.data()},
         &pool);
  EXPECT_EQ(out.back(), 42.0f);
  for (int64_t r = 0; r < p.rows; ++r) {
    for (int64_t n = 0; n < p.outputs; ++n) {
      double sum = 0;
      double magnitude = 1;
      for (int64_t k = 0; k < p.inputs; ++k) {
        const double term =
            double{x[static_cast<size_t>(r * p.inputs + k)]} *
            weights.values[static_cast<size_t>(n * p.inputs + k)];
        sum += term;
        magnitude += std::abs(term);
      }
      const auto index = static_cast<size_t>(r * p.outputs + n);
      if (p.bias) sum += bias[static_cast<size_t>(n)];
      if (p.mode == Mode::kAdd) sum += old[index];
      ASSERT_NEAR(out[index], sum, 1e-6 * magnitude)
          << "row " << r << " output " << n << " of " << p.rows << " x "
          << p.outputs << " x " << p.inputs;
    }
  }
}

TEST(MatMulTest, AgreesWithDoublePrecisionForEveryNumberOfRows) {
  ForEachSimdTarget([] {
    for (const ElementType dtype : kDtypes) {
      for (int64_t rows = 1; rows <= 33; ++rows) {
        ExpectProductIsRight(
            {.rows = rows, .outputs = 47, .inputs = 19, .dtype = dtype}, 1);
      }
    }
  });
}

TEST(MatMulTest, AgreesWithDoublePrecisionForOddSizes) {
  ForEachSimdTarget([] {
    TestRandom random(5);
    for (int i = 0; i < 40; ++i) {
      ExpectProductIsRight(
          {.rows = RandomInt(random, 1, 20),
           .outputs = RandomInt(random, 1, 200),
           .inputs = RandomInt(random, 1, 700),
           .dtype = kDtypes[i % 3],
           .bias = RandomInt(random, 0, 1) == 1,
           .mode = RandomInt(random, 0, 1) == 1 ? Mode::kAdd : Mode::kStore},
          static_cast<uint32_t>(i));
    }
  });
}

TEST(MatMulTest, AgreesWithDoublePrecisionForManyRows) {
  for (const ElementType dtype : kDtypes) {
    ExpectProductIsRight({.rows = 211,
                          .outputs = 161,
                          .inputs = 530,
                          .dtype = dtype,
                          .bias = true,
                          .mode = Mode::kAdd},
                         3);
  }
}

TEST(MatMulTest, ARowHasTheSameBitsAloneAndInAnyCompany) {
  ForEachSimdTarget([] {
    for (const ElementType dtype : kDtypes) {
      TestRandom random(7);
      const int64_t inputs = 600;
      const int64_t outputs = 200;
      ThreadPool one(1);
      ThreadPool three(3);
      const Weights weights = MakeWeights(random, outputs * inputs, dtype);
      const auto w =
          PackOrDie(WholeSource(weights, dtype, outputs, inputs), &three);
      const int64_t rows = 130;
      const std::vector<float> x = RandomFloats(random, rows * inputs);
      const std::vector<float> bias = RandomFloats(random, outputs);
      std::vector<float> alone(static_cast<size_t>(rows * outputs));
      for (int64_t r = 0; r < rows; ++r) {
        MatMul({.w = w.get(),
                .x = x.data() + r * inputs,
                .rows = 1,
                .bias = bias.data(),
                .out = alone.data() + r * outputs},
               &one);
      }
      for (int i = 0; i < 25; ++i) {
        const int64_t first = RandomInt(random, 0, 129);
        const int64_t count =
            i == 0 ? rows - first
                   : RandomInt(random, 1, static_cast<int>(rows - first));
        std::vector<float> out(static_cast<size_t>(count * outputs));
        MatMul({.w = w.get(),
                .x = x.data() + first * inputs,
                .rows = count,
                .bias = bias.data(),
                .out = out.data()},
               i % 2 == 0 ? &three : &one);
        ASSERT_EQ(std::memcmp(out.data(), alone.data() + first * outputs,
                              out.size() * sizeof(float)),
                  0)
            << count << " rows from " << first;
      }
    }
  });
}

TEST(MatMulTest, TargetsWithFusedMultiplyAddGiveTheSameBits) {
  TestRandom random(9);
  ThreadPool pool(2);
  const Weights weights = MakeWeights(random, 70 * 300, ElementType::kBf16);
  const auto w =
      PackOrDie(WholeSource(weights, ElementType::kBf16, 70, 300), &pool);
  const std::vector<float> x = RandomFloats(random, 5 * 300);
  std::vector<std::vector<float>> results;
  for (const int64_t target : SimdTargets()) {
    if (target != HWY_AVX2 && target != HWY_AVX3) continue;
    hwy::SetSupportedTargetsForTest(target);
    std::vector<float> out(5 * 70);
    MatMul({.w = w.get(), .x = x.data(), .rows = 5, .out = out.data()}, &pool);
    results.push_back(out);
  }
  hwy::SetSupportedTargetsForTest(0);
  for (const std::vector<float>& result : results) {
    EXPECT_EQ(result, results.front());
  }
}

TEST(PackedMatrixTest, EveryHalfAndBfloat16IsMultipliedExactly) {
  ForEachSimdTarget([] {
    ThreadPool pool(2);
    for (const ElementType dtype : {ElementType::kF16, ElementType::kBf16}) {
      std::vector<uint16_t> bits(65536);
      for (size_t i = 0; i < bits.size(); ++i) {
        bits[i] = static_cast<uint16_t>(i);
      }
      MatrixSource source;
      source.rows = 65536;
      source.cols = 1;
      source.pieces.push_back(
          {.data = reinterpret_cast<const std::byte*>(bits.data()),
           .dtype = dtype,
           .stride = 1,
           .rows = 65536,
           .cols = 1});
      const auto w = PackOrDie(source, &pool);
      const float one = 1.0f;
      std::vector<float> out(65536);
      MatMul({.w = w.get(), .x = &one, .rows = 1, .out = out.data()}, &pool);
      for (size_t i = 0; i < bits.size(); ++i) {
        const float value = dtype == ElementType::kF16
                                ? FloatFromHalf(bits[i])
                                : FloatFromBfloat16(bits[i]);
        float row = 0;
        w->CopyRow(static_cast<int64_t>(i), &row);
        if (std::isnan(value)) {
          ASSERT_TRUE(std::isnan(out[i])) << i;
          ASSERT_TRUE(std::isnan(row)) << i;
        } else {
          ASSERT_EQ(out[i], value) << i;
          ASSERT_EQ(row, value) << i;
        }
      }
    }
  });
}

// Query heads 0 and 2 of three, as columns of an output projection, above a
// block of another dtype; data starts at odd addresses.
TEST(PackedMatrixTest, IsPutTogetherFromUnalignedPiecesOfDifferentDtypes) {
  TestRandom random(11);
  ThreadPool pool(2);
  const int64_t head = 8;
  const int64_t rows = 40;
  const Weights wo = MakeWeights(random, rows * 3 * head, ElementType::kF16);
  const Weights tail = MakeWeights(random, 5 * 2 * head, ElementType::kF32);
  std::vector<std::byte> shifted(wo.bytes.size() + 1);
  std::copy(wo.bytes.begin(), wo.bytes.end(), shifted.begin() + 1);
  MatrixSource source;
  source.rows = rows + 5;
  source.cols = 2 * head;
  for (int64_t i = 0; i < 2; ++i) {
    source.pieces.push_back({.data = shifted.data() + 1 + i * 2 * head * 2,
                             .dtype = ElementType::kF16,
                             .stride = 3 * head,
                             .row = 0,
                             .col = i * head,
                             .rows = rows,
                             .cols = head});
  }
  source.pieces.push_back({.data = tail.bytes.data(),
                           .dtype = ElementType::kF32,
                           .stride = 2 * head,
                           .row = rows,
                           .col = 0,
                           .rows = 5,
                           .cols = 2 * head});
  const auto w = PackOrDie(source, &pool);
  EXPECT_EQ(w->dtype(), ElementType::kF32);
  EXPECT_EQ(w->bytes(), 2 * 32 * 2 * head * 4);
  std::vector<float> row(static_cast<size_t>(2 * head));
  for (int64_t r = 0; r < rows + 5; ++r) {
    w->CopyRow(r, row.data());
    for (int64_t c = 0; c < 2 * head; ++c) {
      const float expected =
          r < rows
              ? wo.values[static_cast<size_t>(r * 3 * head +
                                              (c < head ? c : c + head))]
              : tail.values[static_cast<size_t>((r - rows) * 2 * head + c)];
      ASSERT_EQ(row[static_cast<size_t>(c)], expected) << r << ", " << c;
    }
  }
}

}  // namespace
}  // namespace headcount
