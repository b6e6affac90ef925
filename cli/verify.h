// `headcount verify`: a pruned model against the dense one, as a gate.
#pragma once

#include "cli/command.h"

namespace headcount {

Command VerifyCommand(CLI::App& root);

}  // namespace headcount
