// Which of several given answers a sequence of tokens can still become.
//
//   ChoiceWalk walk({{5, 7}, {5, 8, 9}}, {kEos});
//   walk.allowed();           // 5
//   walk.Push(5);
//   walk.allowed();           // 7, 8
//   walk.Push(7);
//   walk.chosen();            // 0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace headcount {

// Not thread-safe.
class ChoiceWalk {
 public:
  // `choices`: each of at least one token, no two equal. `end_ids`: tokens that
  // say that the answer ends where a longer one goes on; without any, none of
  // the choices begins another.
  ChoiceWalk(std::vector<std::vector<int32_t>> choices,
             std::vector<int32_t> end_ids);

  // What may come next, by rising id; empty once there is a choice, or if there
  // was none to begin with.
  const std::vector<int32_t>& allowed() const { return allowed_; }
  // Takes one of `allowed`.
  void Push(int32_t token);
  // Index of the choice, when no other is possible any more.
  std::optional<int32_t> chosen() const { return chosen_; }

 private:
  // Finds what may follow the tokens so far.
  void Look();

  const std::vector<std::vector<int32_t>> choices_;
  const std::vector<int32_t> end_ids_;
  std::vector<size_t> open_;  // choices that begin with the tokens so far
  size_t depth_ = 0;          // number of the tokens so far
  std::vector<int32_t> allowed_;
  std::optional<int32_t> chosen_;
};

}  // namespace headcount
