// `headcount ps`: what runs now, and who holds how much of the KV pool.
#pragma once

#include "cli/command.h"

namespace headcount {

Command PsCommand(CLI::App& root);

}  // namespace headcount
