// Random numbers that are the same everywhere for one seed: those of <random>'s
// distributions differ between standard libraries.
#pragma once

#include <cstdint>

namespace headcount::sim {

// Spreads both over all bits. Good enough to tell contents apart.
inline uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = (a ^ (b + 0x9e3779b97f4a7c15)) * 0xff51afd7ed558ccd;
  x ^= x >> 32;
  x *= 0xc4ceb9fe1a85ec53;
  return x ^ (x >> 29);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(Mix(seed, 1)) {}

  uint64_t Next() { return Mix(state_ += 0x9e3779b97f4a7c15, 2); }
  int Pick(int low, int high) {  // both included
    return low +
           static_cast<int>(Next() % static_cast<uint64_t>(high - low + 1));
  }
  bool Chance(double probability) {
    return static_cast<double>(Next() >> 11) * 0x1.0p-53 < probability;
  }

 private:
  uint64_t state_;
};

}  // namespace headcount::sim
