// `headcount import`: what other tools found out about heads, as a mask file.
#pragma once

#include "cli/command.h"

namespace headcount {

Command ImportCommand(CLI::App& root);

}  // namespace headcount
