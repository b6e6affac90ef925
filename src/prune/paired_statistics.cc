#include "prune/paired_statistics.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "prune/seeded_random.h"

namespace headcount {
namespace {

// Tango's statistic for the hypothesis that the rates differ by `delta`. It
// falls as delta rises.
double TangoScore(const PairedCounts& counts, double delta) {
  const auto n = static_cast<double>(counts.n);
  const auto lost = static_cast<double>(counts.lost);
  const auto gained = static_cast<double>(counts.gained);
  // The likeliest rate of gains under the hypothesis.
  const double b = -lost - gained + (2 * n - lost + gained) * delta;
  const double c = -gained * delta * (1 - delta);
  const double root = std::sqrt(std::max(0.0, b * b - 8 * n * c));
  const double rate = (root - b) / (4 * n);
  const double variance = n * (2 * rate + delta * (1 - delta));
  const double distance = lost - gained - n * delta;
  if (variance <= 0) {
    return distance == 0 ? 0 : std::copysign(INFINITY, distance);
  }
  return distance / std::sqrt(variance);
}

// Where the falling TangoScore passes `target`.
double SolveTango(const PairedCounts& counts, double target) {
  double low = -1;
  double high = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (TangoScore(counts, middle) > target ? low : high) = middle;
  }
  return (low + high) / 2;
}

}  // namespace

double McNemarExact(const PairedCounts& counts) {
  const int64_t n = counts.lost + counts.gained;
  const int64_t few = std::min(counts.lost, counts.gained);
  if (n == 0) return 1;
  const auto total = static_cast<double>(n);
  double tail = 0;
  for (int64_t k = 0; k <= few; ++k) {
    const auto drawn = static_cast<double>(k);
    tail += std::exp(std::lgamma(total + 1) - std::lgamma(drawn + 1) -
                     std::lgamma(total - drawn + 1) - total * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

Bounds TangoBounds(const PairedCounts& counts, double z) {
  CHECK(counts.n >= 1);
  return {.low = SolveTango(counts, z), .high = SolveTango(counts, -z)};
}

Bounds BootstrapMean(const std::vector<double>& values, uint64_t seed,
                     int resamples) {
  CHECK(!values.empty() && resamples > 0);
  SeededRandom random(seed);
  std::vector<double> means;
  means.reserve(static_cast<size_t>(resamples));
  for (int i = 0; i < resamples; ++i) {
    double sum = 0;
    for (size_t k = 0; k < values.size(); ++k) {
      sum += values[random.Below(values.size())];
    }
    means.push_back(sum / static_cast<double>(values.size()));
  }
  return {.low = QuantileOf(means, 0.025), .high = QuantileOf(means, 0.975)};
}

int64_t ExamplesToBound(double rate, double margin, bool power) {
  CHECK(margin > 0);
  const double z = power ? kOneSided95 + 0.842 : kOneSided95;
  // A part in 10^9 less: 0.02 is not exact, and 136 must not become 137.
  const double count = std::ceil(z * z * rate / (margin * margin) * (1 - 1e-9));
  // Neither infinity nor, where margin * margin is 0, NaN is less.
  return count < 0x1p63 ? static_cast<int64_t>(count) : kNoExamplesDo;
}

double HalfWidth(double rate, int64_t n) {
  return kTwoSided95 * std::sqrt(rate / static_cast<double>(n));
}

double Jaccard(const std::vector<bool>& a, const std::vector<bool>& b) {
  CHECK(a.size() == b.size());
  int64_t both = 0;
  int64_t any = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    both += a[i] && b[i] ? 1 : 0;
    any += a[i] || b[i] ? 1 : 0;
  }
  return any == 0 ? 1 : static_cast<double>(both) / static_cast<double>(any);
}

double MeanOf(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

double QuantileOf(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const auto count = static_cast<double>(values.size());
  const double rank = std::clamp(std::ceil(share * count), 1.0, count);
  const auto index = static_cast<int64_t>(rank) - 1;
  std::nth_element(values.begin(), values.begin() + index, values.end());
  return values[static_cast<size_t>(index)];
}

}  // namespace headcount
