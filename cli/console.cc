#include "cli/console.h"

#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/strings/ascii.h"

namespace headcount {
namespace {

bool StartsCharacter(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
}

// A C1 control character, U+0080 to U+009F, which some terminals obey.
bool IsC1(const std::string& text, size_t i) {
  return text[i] == '\xC2' && i + 1 < text.size() &&
         static_cast<unsigned char>(text[i + 1]) < 0xA0;
}

}  // namespace

Console Console::Standard(std::string program) {
  const char* no_colour = std::getenv("NO_COLOR");  // no-color.org
  const bool err_is_terminal = isatty(STDERR_FILENO) != 0;
  return {.in = std::cin,
          .out = std::cout,
          .err = std::cerr,
          .in_is_terminal = isatty(STDIN_FILENO) != 0,
          .out_is_terminal = isatty(STDOUT_FILENO) != 0,
          .err_is_terminal = err_is_terminal,
          .err_has_colours =
              err_is_terminal && (no_colour == nullptr || *no_colour == '\0'),
          .program = std::move(program)};
}

void PrintError(Console& console, const std::string& name,
                const std::string& message) {
  if (console.err_has_colours) {
    console.err << "\x1b[1;31m" << name << ":\x1b[0m " << message << "\n";
  } else {
    console.err << name << ": " << message << "\n";
  }
}

std::string Printable(const std::string& text, bool keep_lines) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (keep_lines && (text[i] == '\n' || text[i] == '\t')) {
      result += text[i];
    } else if (IsC1(text, i)) {
      result += ' ';
      ++i;
    } else {
      const auto byte = static_cast<unsigned char>(text[i]);
      result += byte < 0x20 || byte == 0x7F ? ' ' : text[i];
    }
  }
  return result;
}

int Columns(const std::string& text) {
  int columns = 0;
  for (const char byte : text) columns += StartsCharacter(byte) ? 1 : 0;
  return columns;
}

std::string Crop(const std::string& text, int columns) {
  std::string line = Printable(text);
  absl::RemoveExtraAsciiWhitespace(&line);
  if (Columns(line) <= columns) return line;
  int kept = 0;
  size_t end = 0;
  for (; end < line.size(); ++end) {
    if (StartsCharacter(line[end]) && ++kept > columns - 3) break;
  }
  line.resize(end);
  return line + "...";
}

}  // namespace headcount
