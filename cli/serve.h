#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount serve`: the server itself.
Command ServeCommand(CLI::App& root);

}  // namespace headcount
