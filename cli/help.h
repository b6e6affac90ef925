// The pages that --help shows; docs/cli.md is made of the same.
#pragma once

#include <string>

#include "CLI/CLI.hpp"

namespace headcount {

// Purpose, usage, flags by group with default and environment variable on each
// flag, then the footer (examples). 80 columns.
class HelpFormatter final : public CLI::FormatterBase {
 public:
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override;
};

// docs/cli.md: the help pages of `root` and of all commands that it shows.
std::string HelpMarkdown(CLI::App& root);

}  // namespace headcount
