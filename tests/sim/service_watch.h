// Two who both always want more: what one got more than the other may not move
// by more than a bound, however long that lasts.
#pragma once

#include <algorithm>

namespace headcount::sim {

class ServiceWatch {
 public:
  // Total service of each; `both` want more now, and did since last time.
  void Observe(bool both, double first, double second) {
    const double difference = first - second;
    if (!both) {
      watching_ = false;
      return;
    }
    if (!watching_) low_ = high_ = difference;
    watching_ = true;
    low_ = std::min(low_, difference);
    high_ = std::max(high_, difference);
  }
  double spread() const { return watching_ ? high_ - low_ : 0; }

 private:
  bool watching_ = false;
  double low_ = 0;
  double high_ = 0;
};

}  // namespace headcount::sim
