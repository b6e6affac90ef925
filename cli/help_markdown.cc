#include "cli/help_markdown.h"

#include "cli/help.h"

namespace headcount {

Command HelpMarkdownCommand(CLI::App& root) {
  CLI::App& app = AddCommand(root, "help-markdown", "docs/cli.md");
  app.group("");
  return {.app = &app, .run = [&root](Console& console) {
            console.out << HelpMarkdown(root);
            return absl::OkStatus();
          }};
}

}  // namespace headcount
