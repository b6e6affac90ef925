#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount list`: what a server serves.
Command ListCommand(CLI::App& root);

}  // namespace headcount
