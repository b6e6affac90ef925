// Columns of text that line up.
//
//   Table table({{"MODEL"}, {"KV/TOKEN", Align::kRight}});
//   table.AddRow({"mailroom", "3.0 KiB"});
//   console.out << table.Render();
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace headcount {

enum class Align { kLeft, kRight };

class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns);

  // CHECKs that there is one cell for each column.
  void AddRow(std::vector<std::string> cells);

  // A title line, then the rows, two spaces between columns, no trailing
  // spaces.
  std::string Render() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "name   value" lines, names padded to one width.
std::string RenderFields(
    const std::vector<std::pair<std::string, std::string>>& fields);

}  // namespace headcount
