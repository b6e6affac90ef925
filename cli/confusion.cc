#include "cli/confusion.h"

#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/console.h"
#include "cli/statistics.h"
#include "cli/table.h"

namespace headcount {

void Confusion::Add(const std::string& truth, const std::string& guess) {
  ++counts_[truth][guess];
  ++total_;
  if (truth == guess) ++right_;
}

double Confusion::accuracy() const {
  return total_ == 0
             ? 0
             : static_cast<double>(right_) / static_cast<double>(total_);
}

std::string Confusion::Render() const {
  const Interval interval = WilsonInterval(right_, total_);
  std::string text = absl::StrFormat(
      "%.2f %% right (%d of %d), 95 %% interval %.2f to %.2f %%\n\n",
      100 * accuracy(), right_, total_, 100 * interval.low,
      100 * interval.high);
  std::set<std::string> guesses;
  for (const auto& [truth, row] : counts_) {
    for (const auto& [guess, count] : row) guesses.insert(guess);
  }
  std::vector<Table::Column> columns = {{"TRUTH"}};
  for (const std::string& guess : guesses) {
    columns.push_back({absl::StrCat("AS ", Crop(guess, 20)), Align::kRight});
  }
  Table table(columns);
  for (const auto& [truth, row] : counts_) {
    std::vector<std::string> cells = {Crop(truth, 20)};
    for (const std::string& guess : guesses) {
      const auto count = row.find(guess);
      cells.push_back(absl::StrCat(count == row.end() ? 0 : count->second));
    }
    table.AddRow(std::move(cells));
  }
  return text + table.Render();
}

Json Confusion::ToJson() const {
  const Interval interval = WilsonInterval(right_, total_);
  return {{"total", total_},
          {"right", right_},
          {"accuracy", accuracy()},
          {"interval_95", {interval.low, interval.high}},
          {"confusion", counts_}};
}

}  // namespace headcount
