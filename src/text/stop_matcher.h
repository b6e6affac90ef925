// Finds the first of several stop strings in text that arrives in pieces, and
// holds back what could still become one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace headcount {

// Not thread-safe.
class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  // Text that can be shown after `piece`: no stop string begins in it. Once
  // stopped() is true, gives nothing more.
  std::string Push(std::string_view piece);
  // What was held back, when the sequence ends for another reason.
  std::string Finish();

  bool stopped() const { return matched_ != nullptr; }
  // The stop string that was found; null before.
  const std::string* matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  const std::string* matched_ = nullptr;
};

}  // namespace headcount
