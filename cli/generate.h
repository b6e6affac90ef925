#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount generate`: a prompt goes out, text streams back.
Command GenerateCommand(CLI::App& root);

}  // namespace headcount
