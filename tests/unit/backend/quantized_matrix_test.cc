// Weights that stay quantised: Pack with Precision::kFast.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/backend/quantized_products.h"
#include "tests/unit/backend/random_floats.h"
#include "tests/unit/backend/simd_targets.h"

namespace headcount {
namespace {

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

}  // namespace
}  // namespace headcount
