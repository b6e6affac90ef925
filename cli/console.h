// Where a command reads and writes: data to `out`; progress, footers and errors
// to `err`. A value that tests can fill with string streams.
#pragma once

#include <istream>
#include <ostream>
#include <string>

namespace headcount {

struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  bool err_is_terminal = false;
  bool err_has_colours = false;  // a terminal, and no NO_COLOR
  // How this program was started, for commands that the reader can paste.
  std::string program = "headcount";

  // stdin, stdout and stderr of this process.
  static Console Standard(std::string program);
};

// One line on `err`: "name: message", the name in red where colours show.
void PrintError(Console& console, const std::string& name,
                const std::string& message);

// `text` without what a terminal would obey: control characters become spaces
// (line feeds and tabs too, unless `keep_lines`). Mail and model output are
// nobody's trusted input.
std::string Printable(const std::string& text, bool keep_lines = false);

// The first `columns` characters of `text` as one line, with ... at the end if
// something was cut. Counts UTF-8 characters.
std::string Crop(const std::string& text, int columns);

// UTF-8 characters in `text`.
int Columns(const std::string& text);

}  // namespace headcount
