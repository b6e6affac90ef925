// `headcount load`, `unload` and `drain`: what is served, changed at run time.
#pragma once

#include "cli/command.h"

namespace headcount {

Command LoadCommand(CLI::App& root);
Command UnloadCommand(CLI::App& root);
Command DrainCommand(CLI::App& root);

}  // namespace headcount
