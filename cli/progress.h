// A bar on stderr, with the time that is left, on a terminal only: pipes and
// logs see nothing of it.
//
//   Progress progress(console, "mails", 701);
//   progress.Show(32);
//   // scope exit clears the line
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "cli/console.h"

namespace headcount {

class Progress {
 public:
  // `unit` as in "32 / 701 mails". `console` outlives the bar.
  Progress(Console& console, std::string unit, int64_t total);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  // Redraws, at most ten times a second.
  void Show(int64_t done);

 private:
  // ", 1m20s left"; nothing in the first seconds.
  std::string TimeLeft(int64_t done, absl::Time now);

  Console& console_;
  const std::string unit_;
  const int64_t total_;
  const absl::Time start_;
  absl::Time last_ = absl::InfinitePast();
  // Since when, and from where, the pace is measured: a second after the start,
  // so that what was found done already does not count.
  absl::Time pace_start_ = absl::InfinitePast();
  int64_t pace_done_ = 0;
};

}  // namespace headcount
