#include "recorder.h"

#include "cli/bench.h"
#include "cli/chat.h"
#include "cli/classify.h"
#include "cli/generate.h"
#include "cli/health.h"
#include "cli/list.h"
#include "cli/serve.h"
#include "cli/show.h"

namespace headcount {

int Recorder::Run(const std::vector<std::string>& args) {
  const std::unique_ptr<CLI::App> root = NewCommandLine();
  const std::vector<Command> commands = {
      BenchCommand(*root),    ChatCommand(*root),   ClassifyCommand(*root),
      GenerateCommand(*root), HealthCommand(*root), ListCommand(*root),
      ServeCommand(*root),    ShowCommand(*root)};
  return RunCommand(*root, commands, args, console);
}

Json ParseOutput(const std::string& text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace headcount
