#include "cli/table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "cli/console.h"

namespace headcount {
namespace {

std::string Padding(int columns) {
  return std::string(static_cast<size_t>(std::max(columns, 0)), ' ');
}

}  // namespace

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::AddRow(std::vector<std::string> cells) {
  CHECK(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::Render() const {
  std::vector<std::string> titles;
  for (const Column& column : columns_) titles.push_back(column.title);
  std::vector<std::vector<std::string>> lines = {std::move(titles)};
  lines.insert(lines.end(), rows_.begin(), rows_.end());

  std::vector<int> widths(columns_.size(), 0);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      widths[i] = std::max(widths[i], Columns(line[i]));
    }
  }
  std::string text;
  for (const auto& line : lines) {
    std::string row;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding = Padding(widths[i] - Columns(line[i]));
      absl::StrAppend(&row, i == 0 ? "" : "  ",
                      columns_[i].align == Align::kRight
                          ? absl::StrCat(padding, line[i])
                          : absl::StrCat(line[i], padding));
    }
    absl::StripTrailingAsciiWhitespace(&row);
    absl::StrAppend(&text, row, "\n");
  }
  return text;
}

std::string RenderFields(
    const std::vector<std::pair<std::string, std::string>>& fields) {
  int width = 0;
  for (const auto& [name, value] : fields) {
    width = std::max(width, Columns(name));
  }
  std::string text;
  for (const auto& [name, value] : fields) {
    absl::StrAppend(&text, name, Padding(width - Columns(name) + 2), value,
                    "\n");
  }
  return text;
}

}  // namespace headcount
