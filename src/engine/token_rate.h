// Tokens per second of the recent past: each count fades with e^(-age / 10 s).
#pragma once

#include <cmath>
#include <cstdint>

#include "absl/time/time.h"

namespace headcount {

// Not thread-safe.
class TokenRate {
 public:
  void Add(absl::Time now, int64_t tokens) {
    rate_ = At(now) + static_cast<double>(tokens) / kWindowSeconds;
    last_ = now;
  }

  double At(absl::Time now) const {
    return rate_ *
           std::exp(-absl::ToDoubleSeconds(now - last_) / kWindowSeconds);
  }

 private:
  static constexpr double kWindowSeconds = 10;

  double rate_ = 0;
  absl::Time last_ = absl::UnixEpoch();
};

}  // namespace headcount
