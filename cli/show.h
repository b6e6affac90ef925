#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount show`: one model, layer by layer.
Command ShowCommand(CLI::App& root);

}  // namespace headcount
