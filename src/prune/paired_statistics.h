// What two models' answers to the same examples can tell: tests, intervals and
// how many examples a claim needs.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace headcount {

// How often two models differ on n examples.
struct PairedCounts {
  int64_t n = 0;
  int64_t lost = 0;    // the first is right, the second wrong
  int64_t gained = 0;  // the other way round
};

// Two-sided p-value of "neither is better" (McNemar 1947, exact: under that
// hypothesis `lost` of lost + gained is binomial with 1/2). 1 without any
// difference.
double McNemarExact(const PairedCounts& counts);

struct Bounds {
  double low = 0;
  double high = 0;
};

// The rate of losses minus that of gains, in [-1, 1], from the score test of
// Tango (1998, Statistics in Medicine 17) at `z`: unlike a bootstrap it is not
// [0, 0] where no answer differs. z = 1.645: each side alone holds with 95 %.
// n >= 1.
Bounds TangoBounds(const PairedCounts& counts, double z);

inline constexpr double kOneSided95 = 1.645;
inline constexpr double kTwoSided95 = 1.96;

// 95 % interval of the mean of `values` (percentile bootstrap, Efron 1979):
// the same seed gives the same interval. [v, v] for one value; `values` is not
// empty.
Bounds BootstrapMean(const std::vector<double>& values, uint64_t seed,
                     int resamples = 10'000);

// No number of examples would do, or none that can be counted.
inline constexpr int64_t kNoExamplesDo = std::numeric_limits<int64_t>::max();

// Examples needed so that a loss of nothing is bounded by `margin`, when a
// share `rate` of the answers differs: (1.645 / margin)^2 rate, rounded up.
// With `power`, so many that 4 of 5 such runs succeed: 2.487 instead of 1.645.
// kNoExamplesDo from 2^63 on. `margin` > 0.
int64_t ExamplesToBound(double rate, double margin, bool power = false);

// Half of the width of the 95 % interval of a difference when a share `rate`
// of n answers differs: 1.96 sqrt(rate / n).
double HalfWidth(double rate, int64_t n);

// |a and b| / |a or b| (Jaccard 1912) of two sets over the same elements; 1 if
// both are empty.
double Jaccard(const std::vector<bool>& a, const std::vector<bool>& b);

double MeanOf(const std::vector<double>& values);  // 0 if empty
// The smallest value that `share` of the values do not exceed; 0 if empty.
double QuantileOf(std::vector<double> values, double share);

}  // namespace headcount
