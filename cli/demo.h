#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount demo`, hidden: what scripts/serve.sh --demo shows. A real server
// in this process, asked over a real socket.
Command DemoCommand(CLI::App& root);

}  // namespace headcount
