#include "server/random_bits.h"

#include <random>

namespace headcount {
namespace {

std::mt19937_64& Generator() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seed{device(), device(), device(), device()};
    return std::mt19937_64(seed);
  }();
  return generator;
}

}  // namespace

uint64_t RandomBits() { return Generator()(); }

std::array<std::byte, 16> SecretKey() {
  std::random_device device;
  std::array<std::byte, 16> key;
  for (std::byte& byte : key) byte = static_cast<std::byte>(device() & 0xFF);
  return key;
}

double RandomFraction() {
  return std::uniform_real_distribution<double>(0.0, 1.0)(Generator());
}

}  // namespace headcount
