#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount health`: the probe of a container.
Command HealthCommand(CLI::App& root);

}  // namespace headcount
