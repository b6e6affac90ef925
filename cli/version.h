#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount version`: what was built.
Command VersionCommand(CLI::App& root);

}  // namespace headcount
