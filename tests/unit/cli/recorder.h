// A console of strings, and a command line run on it.
#pragma once

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/output.h"

namespace headcount {

struct Recorder {
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  Console console{.in = in, .out = out, .err = err};

  // Runs `args` with all client commands. Returns the exit code.
  int Run(const std::vector<std::string>& args);
};

// The members of one JSON document.
Json ParseOutput(const std::string& text);

}  // namespace headcount
