#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount check`: what is it, would it serve, and what would it cost?
Command CheckCommand(CLI::App& root);

}  // namespace headcount
