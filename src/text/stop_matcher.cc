#include "text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace headcount {

bool StopMatcher::Stop::Advance(char byte) {
  while (length > 0 && text[length] != byte) length = border[length - 1];
  if (text[length] == byte) ++length;
  return length == text.size();
}

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& text : stops) {
    if (text.empty()) continue;
    Stop stop{std::move(text), {0}};
    // A string's borders are what its own automaton finds in its tail.
    for (size_t i = 1; i < stop.text.size(); ++i) {
      stop.Advance(stop.text[i]);
      stop.border.push_back(stop.length);
    }
    stop.length = 0;
    stops_.push_back(std::move(stop));
  }
  // The longest of those that end at one byte is to be seen first.
  std::stable_sort(stops_.begin(), stops_.end(),
                   [](const Stop& a, const Stop& b) {
                     return a.text.size() > b.text.size();
                   });
}

std::string StopMatcher::Push(std::string_view piece) {
  if (stopped()) return {};
  for (const char byte : piece) {
    held_.push_back(byte);
    for (size_t i = 0; i < stops_.size(); ++i) {
      if (!stops_[i].Advance(byte)) continue;
      matched_ = i;
      held_.resize(held_.size() - stops_[i].text.size());
      return std::exchange(held_, {});
    }
  }
  size_t waiting = 0;
  for (const Stop& stop : stops_) waiting = std::max(waiting, stop.length);
  std::string shown = held_.substr(0, held_.size() - waiting);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::Finish() { return std::exchange(held_, {}); }

}  // namespace headcount
