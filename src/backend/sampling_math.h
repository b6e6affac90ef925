// The arithmetic of sampling that the host and every device share to the bit.
//
// A token's weight is its probability over the highest one's: in float32 by
// operations that round alike everywhere, none of them fused. Files that
// include this are compiled without contraction. Sums of weights are of
// integers and exact, so that they have no order: multiples of 2^-40, below
// which a token counts for nothing.
#pragma once

#include <bit>
#include <cstdint>

#include "backend/philox.h"

namespace headcount {

// A token that stands in the sequence.
struct TokenUse {
  int32_t token = 0;
  int32_t generated = 0;  // times in the answer; 0: in the prompt only
};

struct TokenBias {
  int32_t token = 0;
  float bias = 0;  // on the logit; -infinity: never drawn
};

struct TokenPenalties {
  float repetition = 1.0f;
  float frequency = 0.0f;
  float presence = 0.0f;
};

constexpr float PenalisedLogit(float logit, TokenPenalties penalties,
                               int32_t generated) {
  logit =
      logit > 0 ? logit / penalties.repetition : logit * penalties.repetition;
  if (generated == 0) return logit;
  logit -= penalties.frequency * static_cast<float>(generated);
  return logit - penalties.presence;
}

// exp(x) of x <= 0, within 2^-22 of it; 0 below -87, and for what is no number.
// The polynomial is that of Cephes (Moshier 1989), expf.
constexpr float ExpBelowOne(float x) {
  if (!(x >= -87.0f)) return 0.0f;
  // The nearest integer, ties to even.
  const float n = x * 1.44269504f + 0x1.8p23f - 0x1.8p23f;
  // Of log(2), so few bits that n times them is exact; and the rest.
  const float r = x - n * 0.693359375f - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const int exponent = static_cast<int>(n) + 127;
  return p * std::bit_cast<float>(static_cast<uint32_t>(exponent) << 23);
}

// In [0, 1]; 1 for the highest of the logits that may be drawn.
constexpr float TokenWeight(float logit, float highest, float temperature) {
  return ExpBelowOne((logit - highest) / temperature);
}

inline constexpr int kWeightBits = 40;

// `weight` in multiples of 2^-40, rounded down. Up to 2^23 of them have a sum.
constexpr uint64_t WeightUnits(float weight) {
  return static_cast<uint64_t>(weight * 0x1p40f);
}

// The least sum that is at least `top_p` (below 1) of `sum`. At least 1, so
// that there is a token in it.
constexpr uint64_t WantedWeight(float top_p, uint64_t sum) {
  const double share = static_cast<double>(top_p) * static_cast<double>(sum);
  const auto whole = static_cast<uint64_t>(share);
  const uint64_t wanted =
      static_cast<double>(whole) < share ? whole + 1 : whole;
  return wanted > 0 ? wanted : 1;
}

// The first token whose running sum is above this is drawn. uniform: [0, 2^24)
constexpr uint64_t DrawPoint(uint32_t uniform, uint64_t sum) {
  // uniform * sum / 2^24, without more than 64 bits.
  constexpr uint64_t kLow = (uint64_t{1} << 24) - 1;
  return uniform * (sum >> 24) + (uniform * (sum & kLow) >> 24);
}

}  // namespace headcount
