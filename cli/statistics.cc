#include "cli/statistics.h"

#include <algorithm>
#include <cmath>

namespace headcount {

double Percentile(std::vector<double> values, double percent) {
  if (values.empty()) return 0;
  const double count = static_cast<double>(values.size());
  const double rank = std::ceil(percent / 100 * count);
  const auto index = static_cast<int64_t>(std::clamp(rank, 1.0, count)) - 1;
  std::nth_element(values.begin(), values.begin() + index, values.end());
  return values[static_cast<size_t>(index)];
}

Interval WilsonInterval(int64_t successes, int64_t total) {
  if (total == 0) return {};
  constexpr double kZ = 1.959963984540054;  // the normal's 97.5 % point
  const double n = static_cast<double>(total);
  const double p = static_cast<double>(successes) / n;
  const double centre = p + kZ * kZ / (2 * n);
  const double spread = kZ * std::sqrt(p * (1 - p) / n + kZ * kZ / (4 * n * n));
  const double scale = 1 + kZ * kZ / n;
  return {.low = std::max(0.0, (centre - spread) / scale),
          .high = std::min(1.0, (centre + spread) / scale)};
}

}  // namespace headcount
