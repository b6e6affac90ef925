#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount plan`: what a model would cost, and how many sequences fit.
Command PlanCommand(CLI::App& root);

}  // namespace headcount
