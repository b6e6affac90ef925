#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount chat`: a conversation, line by line, whose answers stream back.
Command ChatCommand(CLI::App& root);

}  // namespace headcount
