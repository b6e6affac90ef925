// How rows of logits differ.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"
#include "tests/unit/model/model_runner.h"

namespace headcount {

inline bool SameBits(const std::vector<LogitsRow>& a,
                     const std::vector<LogitsRow>& b) {
  if (a.size() != b.size()) return false;
  for (size_t row = 0; row < a.size(); ++row) {
    if (std::memcmp(a[row].data(), b[row].data(),
                    a[row].size() * sizeof(float)) != 0) {
      return false;
    }
  }
  return true;
}

// The largest difference of two logits at the same place.
inline double Furthest(const std::vector<LogitsRow>& a,
                       const std::vector<LogitsRow>& b) {
  EXPECT_EQ(a.size(), b.size());
  double furthest = 0;
  for (size_t row = 0; row < a.size(); ++row) {
    for (size_t i = 0; i < a[row].size(); ++i) {
      furthest = std::max(furthest, std::abs(double{a[row][i]} - b[row][i]));
    }
  }
  return furthest;
}

inline double StandardDeviation(const LogitsRow& row) {
  double sum = 0;
  double squares = 0;
  for (const float logit : row) {
    sum += logit;
    squares += static_cast<double>(logit) * logit;
  }
  const auto n = static_cast<double>(row.size());
  return std::sqrt(std::max(squares / n - sum / n * (sum / n), 0.0));
}

}  // namespace headcount
