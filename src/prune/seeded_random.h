// Draws that are the same on every machine: the standard fixes what the engine
// gives, but not what its distributions make of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace headcount {

class SeededRandom {
 public:
  explicit SeededRandom(uint64_t seed) : engine_(seed) {}

  // Uniform in [0, n), but for a bias of at most n / 2^32; 1 <= n < 2^32.
  size_t Below(size_t n) {
    return static_cast<size_t>(((engine_() >> 32) * n) >> 32);
  }

  // Fisher and Yates.
  template <typename T>
  void Shuffle(std::vector<T>* values) {
    for (size_t i = values->size(); i > 1; --i) {
      std::swap((*values)[i - 1], (*values)[Below(i)]);
    }
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace headcount
