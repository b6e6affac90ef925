#include "cli/progress.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/human.h"

namespace headcount {

Progress::Progress(Console& console, std::string unit, int64_t total)
    : console_(console),
      unit_(std::move(unit)),
      total_(total),
      start_(absl::Now()) {}

Progress::~Progress() {
  // Carriage return, then "erase to the end of the line".
  if (last_ != absl::InfinitePast()) console_.err << "\r\x1b[K" << std::flush;
}

std::string Progress::TimeLeft(int64_t done, absl::Time now) {
  if (now - start_ < absl::Seconds(1)) return "";
  if (pace_start_ == absl::InfinitePast()) {
    pace_start_ = now;
    pace_done_ = done;
  }
  const int64_t since = done - pace_done_;
  if (now - pace_start_ < absl::Seconds(2) || since <= 0) return "";
  const absl::Duration left =
      (now - pace_start_) *
      (static_cast<double>(total_ - done) / static_cast<double>(since));
  return absl::StrCat(
      ", ", absl::FormatDuration(absl::Trunc(left, absl::Seconds(1))), " left");
}

void Progress::Show(int64_t done) {
  const absl::Time now = absl::Now();
  if (!console_.err_is_terminal || total_ <= 0 ||
      now - last_ < absl::Milliseconds(100)) {
    return;
  }
  last_ = now;
  constexpr int64_t kWidth = 30;
  const auto filled =
      static_cast<size_t>(std::clamp<int64_t>(done * kWidth / total_, 0, 30));
  std::string bar(filled, '#');
  bar.resize(kWidth, '.');
  console_.err << absl::StrCat("\r[", bar, "] ", FormatCount(done), " / ",
                               FormatCount(total_), " ", unit_,
                               TimeLeft(done, now), "\x1b[K")
               << std::flush;
}

}  // namespace headcount
