// What the shell gets to know.
#pragma once

#include "absl/status/status.h"

namespace headcount {

enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,         // it ran and failed
  kExitUsage = 2,          // the command line is wrong
  kExitUnavailable = 3,    // no server there, or one that does not serve
  kExitInterrupted = 130,  // Ctrl-C, as shells have it: 128 + SIGINT
};

// Unavailable and Cancelled have codes of their own; other errors are
// kExitFailed. Usage errors never become a Status: CLI11 finds them first.
ExitCode ExitCodeOf(const absl::Status& status);

}  // namespace headcount
