// Guesses against the truth.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "cli/output.h"

namespace headcount {

class Confusion {
 public:
  void Add(const std::string& truth, const std::string& guess);

  int64_t total() const { return total_; }
  int64_t right() const { return right_; }
  double accuracy() const;  // 0 if nothing was added

  // "97.43 % right (683 of 701), 95 % interval 95.97 to 98.37 %" and a table
  // of counts, a row for each truth and a column for each guess.
  std::string Render() const;
  Json ToJson() const;

 private:
  std::map<std::string, std::map<std::string, int64_t>> counts_;
  int64_t total_ = 0;
  int64_t right_ = 0;
};

}  // namespace headcount
