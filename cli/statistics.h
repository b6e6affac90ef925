// The two pieces of statistics that the tables show.
#pragma once

#include <cstdint>
#include <vector>

namespace headcount {

// The smallest value that at least `percent` of the values do not exceed
// (nearest rank). `values` in any order; 0 if there are none.
double Percentile(std::vector<double> values, double percent);

struct Interval {
  double low = 0;
  double high = 1;
};

// 95 % confidence interval of a proportion (Wilson 1927, JASA 22): unlike the
// textbook one it stays inside 0 to 1. [0, 1] when `total` is 0.
Interval WilsonInterval(int64_t successes, int64_t total);

}  // namespace headcount
