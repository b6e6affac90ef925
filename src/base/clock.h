// The time, as an interface that production also uses, so that tests and the
// simulator can turn the hands themselves.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace headcount {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

class SystemClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

}  // namespace headcount
