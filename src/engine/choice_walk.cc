#include "engine/choice_walk.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace headcount {

ChoiceWalk::ChoiceWalk(std::vector<std::vector<int32_t>> choices,
                       std::vector<int32_t> end_ids)
    : choices_(std::move(choices)),
      end_ids_(std::move(end_ids)),
      open_(choices_.size()) {
  std::iota(open_.begin(), open_.end(), size_t{0});
  Look();
}

void ChoiceWalk::Push(int32_t token) {
  CHECK(std::binary_search(allowed_.begin(), allowed_.end(), token))
      << "token " << token << " leads to no choice";
  std::vector<size_t> longer;
  std::vector<size_t> complete;
  for (const size_t choice : open_) {
    const std::vector<int32_t>& tokens = choices_[choice];
    if (tokens.size() == depth_) {
      complete.push_back(choice);
    } else if (tokens[depth_] == token) {
      longer.push_back(choice);
    }
  }
  // A token that leads on is no end.
  open_ = longer.empty() ? std::move(complete) : std::move(longer);
  ++depth_;
  Look();
}

void ChoiceWalk::Look() {
  allowed_.clear();
  if (open_.size() == 1 && choices_[open_[0]].size() <= depth_) {
    chosen_ = static_cast<int32_t>(open_[0]);
    return;
  }
  for (const size_t choice : open_) {
    const std::vector<int32_t>& tokens = choices_[choice];
    if (tokens.size() > depth_) {
      allowed_.push_back(tokens[depth_]);
    } else {
      CHECK(!end_ids_.empty()) << "choice " << choice << " begins another";
      allowed_.insert(allowed_.end(), end_ids_.begin(), end_ids_.end());
    }
  }
  std::sort(allowed_.begin(), allowed_.end());
  allowed_.erase(std::unique(allowed_.begin(), allowed_.end()), allowed_.end());
}

}  // namespace headcount
