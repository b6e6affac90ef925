// The frame that every command shares: parse, run, report, exit code.
//
//   std::unique_ptr<CLI::App> root = NewCommandLine();
//   std::vector<Command> commands = {ListCommand(*root), ShowCommand(*root)};
//   return RunCommand(*root, commands, {argv + 1, argv + argc}, console);
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "cli/console.h"

namespace headcount {

struct Command {
  CLI::App* app;  // owned by the root
  // Called after a successful parse. The status decides the exit code.
  std::function<absl::Status(Console& console)> run;
};

// The root: no commands yet.
std::unique_ptr<CLI::App> NewCommandLine();

// Adds a command without flags. What no single flag can know about the others
// belongs into its parse_complete_callback, which throws CLI::ValidationError.
CLI::App& AddCommand(CLI::App& root, const std::string& name,
                     const std::string& description);

// Parses `args` (without the program's name), runs the command that they name,
// prints an error as one line, and returns the exit code. Unknown commands and
// flags get the nearest known one as a suggestion.
int RunCommand(CLI::App& root, const std::vector<Command>& commands,
               const std::vector<std::string>& args, Console& console);

}  // namespace headcount
