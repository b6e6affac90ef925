// headcount - inference for transformer models in which the attention head is
// the unit of deployment: one binary, the server and its clients.
//
// Serve a model, then ask it:
//
//   headcount serve models/mailroom
//   headcount classify 'Congratulations, you have won'
//   headcount generate 'Dear list,' --max-tokens 64
//   headcount chat                       talk with a model that can
//
// Look at it:
//
//   headcount list                       what is served, and what it costs
//   headcount show mailroom              which heads run, layer by layer
//   headcount ps                         what runs, and who holds the KV pool
//   headcount bench --streams 16         how fast it answers
//
// Find heads that a task can spare, and check what is left:
//
//   headcount prune --data mails.jsonl --kv-bytes 50%
//   headcount verify mail-half --against mail --data test.jsonl
//   headcount import duo_pattern/ --weights models/llama
//   headcount export models/mail --mask heads.json --out mail-half
//
// Change what is served while it runs:
//
//   headcount load smollm2               a configured model
//   headcount unload smollm2             and back
//
// Before serving and while it runs:
//
//   headcount plan config.json           what would it cost, what would fit?
//   headcount check --config server.yaml would it serve?
//   headcount health                     the probe of a container
//
// Data goes to stdout, everything else to stderr. Every flag is also an
// environment variable HEADCOUNT_<FLAG>. `headcount COMMAND --help` has
// examples; docs/cli.md has all of it on one page.

#include <cstdlib>
#include <memory>
#include <vector>

#include "cli/bench.h"
#include "cli/chat.h"
#include "cli/check.h"
#include "cli/classify.h"
#include "cli/command.h"
#include "cli/demo.h"
#include "cli/export.h"
#include "cli/generate.h"
#include "cli/health.h"
#include "cli/help_markdown.h"
#include "cli/import.h"
#include "cli/lifecycle.h"
#include "cli/list.h"
#include "cli/plan.h"
#include "cli/prune.h"
#include "cli/ps.h"
#include "cli/serve.h"
#include "cli/show.h"
#include "cli/verify.h"
#include "cli/version.h"

int main(int argc, char** argv) {
  using namespace headcount;
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);  // we report errors
  Console console = Console::Standard(argv[0]);
  const std::unique_ptr<CLI::App> root = NewCommandLine();
  const std::vector<Command> commands = {
      ServeCommand(*root),    CheckCommand(*root),  PlanCommand(*root),
      GenerateCommand(*root), ChatCommand(*root),   ClassifyCommand(*root),
      BenchCommand(*root),    PruneCommand(*root),  VerifyCommand(*root),
      ImportCommand(*root),   ExportCommand(*root), ListCommand(*root),
      ShowCommand(*root),     PsCommand(*root),     LoadCommand(*root),
      UnloadCommand(*root),   DrainCommand(*root),  HealthCommand(*root),
      VersionCommand(*root),  DemoCommand(*root),   HelpMarkdownCommand(*root),
  };
  return RunCommand(*root, commands, {argv + 1, argv + argc}, console);
}
