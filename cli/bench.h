#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount bench`: how fast a server answers, and whether still the same.
Command BenchCommand(CLI::App& root);

}  // namespace headcount
