// `headcount prune`: which heads a task can spare.
#pragma once

#include "cli/command.h"

namespace headcount {

Command PruneCommand(CLI::App& root);

}  // namespace headcount
