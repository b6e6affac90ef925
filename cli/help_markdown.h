#pragma once

#include "cli/command.h"

namespace headcount {

// `headcount help-markdown`, hidden: docs/cli.md on stdout.
Command HelpMarkdownCommand(CLI::App& root);

}  // namespace headcount
