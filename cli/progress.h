// A bar on stderr, on a terminal only: pipes and logs see nothing of it.
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
  Console& console_;
  const std::string unit_;
  const int64_t total_;
  absl::Time last_ = absl::InfinitePast();
};

}  // namespace headcount
