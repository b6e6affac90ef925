#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount classify`: which of the model's labels fits each text.
Command ClassifyCommand(CLI::App& root);

}  // namespace headcount
