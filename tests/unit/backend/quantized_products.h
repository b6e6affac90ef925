// Tensors of every quantised type, packed and multiplied, and what must come
// out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cpu/matmul.h"
#include "backend/cpu/packed_matrix.h"
#include "gtest/gtest.h"
#include "tests/unit/backend/quantized_weights.h"
#include "tests/unit/backend/random_floats.h"

namespace headcount {

inline constexpr ElementType kTypes[] = {
    ElementType::kQ8_0, ElementType::kQ4_0, ElementType::kQ4_1,
    ElementType::kQ5_0, ElementType::kQ5_1, ElementType::kQ4_K,
    ElementType::kQ5_K, ElementType::kQ6_K};

inline size_t Index(int64_t i) { return static_cast<size_t>(i); }

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

inline MatrixSource Whole(const Tensor& tensor, bool wide_input = false) {
  return {.rows = tensor.rows,
          .cols = tensor.cols,
          .pieces = {tensor.Rows(0, tensor.rows)},
          .wide_input = wide_input};
}

inline std::unique_ptr<PackedMatrix> PackOrDie(
    const MatrixSource& source, Precision precision = Precision::kFast) {
  ThreadPool pool(2);
  auto matrix = PackedMatrix::Create(source, precision, &pool);
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  return *std::move(matrix);
}

inline std::vector<float> Multiply(const PackedMatrix& w, const float* x,
                                   int64_t rows, int threads = 1,
                                   const float* bias = nullptr) {
  ThreadPool pool(threads);
  MatMulWorkspace workspace;
  std::vector<float> out(Index(rows * w.rows()));
  MatMul({.w = &w, .x = x, .rows = rows, .bias = bias, .out = out.data()},
         &workspace, &pool);
  return out;
}

// The largest of the integers that stand for elements of x.
inline float LargestInput(const PackedMatrix& w) {
  return w.input_bytes() == 1 ? 127.0f : 127.0f * 256 + 127;
}

// x with each block of 32 columns rounded to multiples of its largest /
// `steps`. [rows, cols]
inline std::vector<double> Rounded(const std::vector<float>& x, int64_t cols,
                                   float steps) {
  std::vector<double> rounded(x.size());
  for (size_t row = 0; row < x.size(); row += Index(cols)) {
    for (int64_t begin = 0; begin < cols; begin += 32) {
      const int64_t end = std::min(begin + 32, cols);
      float largest = 0;
      for (int64_t i = begin; i < end; ++i) {
        largest = std::max(largest, std::abs(x[row + Index(i)]));
      }
      if (largest == 0) continue;
      const float inverse = steps / largest;
      for (int64_t i = begin; i < end; ++i) {
        rounded[row + Index(i)] =
            double{std::nearbyint(x[row + Index(i)] * inverse)} *
            double{largest / steps};
      }
    }
  }
  return rounded;
}

// The weights at rest. [rows, cols]
inline std::vector<float> AtRest(const PackedMatrix& w) {
  std::vector<float> values(Index(w.rows() * w.cols()));
  for (int64_t row = 0; row < w.rows(); ++row) {
    w.CopyRow(row, values.data() + row * w.cols());
  }
  return values;
}

// The only error left is that of three roundings a block (the first, of an
// integer, only where x has two bytes), of a sum no larger than what the
// magnitudes add up to: at 4 bits those of scale * 15 and the minimum, at most
// 4 times the largest weight of the block together.
inline void ExpectProductIsRight(const PackedMatrix& w, int64_t rows,
                                 TestRandom& random) {
  const int64_t cols = w.cols();
  const std::vector<float> weights = AtRest(w);
  const std::vector<float> x = RandomFloats(random, rows * cols);
  const std::vector<double> rounded = Rounded(x, cols, LargestInput(w));
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
                  (3 * blocks + 2) * 0x1p-24 * magnitude)
          << "row " << r << " output " << n << " of " << rows << " x "
          << w.rows() << " x " << cols;
    }
  }
}

}  // namespace headcount
