// Dequantisation against the `gguf` package of llama.cpp, which wrote
// tests/data/quants: random blocks, then the float32 value of each element.
#include "base/element_type.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/golden/golden.h"

namespace headcount {
namespace {

class ElementTypeTest : public testing::TestWithParam<ElementType> {
 protected:
  ElementTypeTest()
      : content_(ReadGzipFile(
            std::string(HEADCOUNT_SOURCE_DIR) + "/tests/data/quants/" +
            std::string(ElementTypeName(GetParam())) + ".gz")) {
    const auto block_bytes = static_cast<size_t>(block_.bytes);
    const auto block_values =
        static_cast<size_t>(block_.elements) * sizeof(float);
    const size_t blocks = content_.size() / (block_bytes + block_values);
    EXPECT_EQ(content_.size(), blocks * (block_bytes + block_values));
    values_.resize(blocks * static_cast<size_t>(block_.elements));
    std::memcpy(values_.data(), content_.data() + blocks * block_bytes,
                blocks * block_values);
  }

  const std::byte* data() const {
    return reinterpret_cast<const std::byte*>(content_.data());
  }

  const ElementBlock block_ = BlockOf(GetParam());
  const std::string content_;
  std::vector<float> values_;
};

// Products of two factors are exact or rounded as there; where a minimum is
// added, a machine with fused multiply-add may round once less.
TEST_P(ElementTypeTest, DequantizesAsTheReference) {
  std::vector<float> found(values_.size());
  Dequantize(GetParam(), data(), 0, static_cast<int64_t>(found.size()),
             found.data());
  const auto block = static_cast<size_t>(block_.elements);
  for (size_t first = 0; first < values_.size(); first += block) {
    float largest = 0;
    for (size_t i = first; i < first + block; ++i) {
      largest = std::max(largest, std::fabs(values_[i]));
    }
    for (size_t i = first; i < first + block; ++i) {
      ASSERT_NEAR(found[i], values_[i], std::ldexp(largest, -22))
          << "element " << i;
    }
  }
}

TEST_P(ElementTypeTest, AnyPartOfARowIsTheSame) {
  std::vector<float> whole(values_.size());
  Dequantize(GetParam(), data(), 0, static_cast<int64_t>(whole.size()),
             whole.data());
  for (const int64_t first : {1, 31, 33, 100, 255}) {
    for (const int64_t count : {0, 1, 32, 150}) {
      if (first + count > static_cast<int64_t>(whole.size())) continue;
      std::vector<float> part(static_cast<size_t>(count));
      Dequantize(GetParam(), data(), first, count, part.data());
      EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + first))
          << count << " from " << first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, ElementTypeTest,
                         testing::Values(ElementType::kF16, ElementType::kBf16,
                                         ElementType::kQ8_0, ElementType::kQ4_0,
                                         ElementType::kQ4_1, ElementType::kQ5_0,
                                         ElementType::kQ5_1, ElementType::kQ4_K,
                                         ElementType::kQ5_K,
                                         ElementType::kQ6_K),
                         [](const auto& instance) {
                           return std::string(ElementTypeName(instance.param));
                         });

}  // namespace
}  // namespace headcount
