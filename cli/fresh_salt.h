// Cache salts that no request has had before: where time is measured, a prompt
// is to be computed, not found in the server's prefix cache.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace headcount {

// Thread-safe.
class FreshSalt {
 public:
  std::string Next() { return absl::StrCat(run_, "-", ++asked_); }

 private:
  const std::string run_ = absl::StrCat(absl::ToUnixNanos(absl::Now()));
  std::atomic<int64_t> asked_ = 0;
};

}  // namespace headcount
