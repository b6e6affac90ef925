// Finds the first of several stop strings in text that arrives in pieces, and
// holds back what could still become one. What it finds does not depend on
// where the pieces are cut.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace headcount {

// Not thread-safe.
class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  // Text that can be shown after `piece`: no stop string begins in it. The
  // first stop string is the one that ends first, the longest if several end
  // there; the text before it is shown. Once stopped() is true, gives nothing
  // more. Takes O(bytes x stop strings) time in all.
  std::string Push(std::string_view piece);
  // What was held back, when the sequence ends for another reason.
  std::string Finish();

  bool stopped() const { return matched_.has_value(); }
  // The stop string that was found; null before. Valid while this lives.
  const std::string* matched() const {
    return matched_ ? &stops_[*matched_].text : nullptr;
  }

 private:
  // The automaton of Knuth, Morris and Pratt.
  struct Stop {
    std::string text;
    std::vector<size_t> border;  // [n]: longest border of the first n + 1 bytes
    size_t length = 0;           // bytes of `text` that the input ends with

    // Reads the next byte of the input; true when it ends with `text`.
    bool Advance(char byte);
  };

  std::vector<Stop> stops_;
  std::string held_;
  std::optional<size_t> matched_;
};

}  // namespace headcount
