// `headcount export`: a model without its pruned heads, as files of its own.
#pragma once

#include "cli/command.h"

namespace headcount {

Command ExportCommand(CLI::App& root);

}  // namespace headcount
