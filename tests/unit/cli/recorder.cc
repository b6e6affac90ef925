#include "recorder.h"

#include "cli/bench.h"
#include "cli/chat.h"
#include "cli/classify.h"
#include "cli/generate.h"
#include "cli/health.h"
#include "cli/import.h"
#include "cli/list.h"
#include "cli/plan.h"
#include "cli/prune.h"
#include "cli/serve.h"
#include "cli/show.h"
#include "cli/verify.h"

namespace headcount {

int Recorder::Run(const std::vector<std::string>& args) {
  const std::unique_ptr<CLI::App> root = NewCommandLine();
  const std::vector<Command> commands = {
      BenchCommand(*root),    ChatCommand(*root),   ClassifyCommand(*root),
      GenerateCommand(*root), HealthCommand(*root), ImportCommand(*root),
      ListCommand(*root),     PlanCommand(*root),   PruneCommand(*root),
      ServeCommand(*root),    ShowCommand(*root),   VerifyCommand(*root)};
  return RunCommand(*root, commands, args, console);
}

Json ParseOutput(const std::string& text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace headcount
