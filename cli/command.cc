#include "cli/command.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/exit_code.h"
#include "cli/flags.h"
#include "cli/help.h"
#include "server/nearest_name.h"

namespace headcount {
namespace {

std::string DidYouMean(const std::string& word,
                       const std::vector<std::string>& candidates) {
  const std::string nearest = NearestName(word, candidates);
  return nearest.empty() ? "" : absl::StrCat("; did you mean '", nearest, "'?");
}

// About the first argument that names no command; empty if there is none.
std::string UnknownCommand(const CLI::App& root,
                           const std::vector<std::string>& args) {
  if (args.empty() || absl::StartsWith(args[0], "-")) return "";
  std::vector<std::string> names;
  for (const CLI::App* command :
       root.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_name() == args[0]) return "";
    if (!command->get_group().empty()) names.push_back(command->get_name());
  }
  return absl::StrCat("there is no command '", args[0], "'",
                      DidYouMean(args[0], names));
}

// About the first flag that the chosen command does not have; empty if there is
// none.
std::string UnknownFlag(const CLI::App& chosen) {
  std::vector<std::string> names;
  for (const CLI::Option* option : chosen.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  for (const std::string& word : chosen.remaining()) {
    if (!absl::StartsWith(word, "-")) continue;
    const std::string flag = word.substr(0, word.find('='));
    return absl::StrCat("there is no flag '", flag, "'",
                        DidYouMean(flag, names));
  }
  return "";
}

// Whether a word of the command line is the option, or begins with it.
bool IsOnCommandLine(const CLI::Option& option,
                     const std::vector<std::string>& args) {
  return std::any_of(args.begin(), args.end(), [&](const std::string& word) {
    const std::string flag = word.substr(0, word.find('='));
    for (const std::string& name : option.get_lnames()) {
      if (flag == "--" + name) return true;
    }
    for (const std::string& name : option.get_snames()) {
      if (absl::StartsWith(word, "-" + name)) return true;
    }
    return false;
  });
}

// " (from HEADCOUNT_THREADS)" for an error of "--threads: ..." that nobody has
// typed; else empty.
std::string FromEnvironment(const CLI::App& chosen, const std::string& message,
                            const std::vector<std::string>& args) {
  for (const CLI::Option* option : chosen.get_options()) {
    const std::string& name = option->get_envname();
    if (name.empty() || std::getenv(name.c_str()) == nullptr ||
        IsOnCommandLine(*option, args)) {
      continue;
    }
    for (const std::string& flag : option->get_lnames()) {
      if (absl::StartsWith(message, absl::StrCat("--", flag, ": "))) {
        return absl::StrCat(" (from ", name, ")");
      }
    }
  }
  return "";
}

int UsageError(const CLI::App& app, const std::string& message,
               Console& console) {
  std::string name = app.get_name();
  if (app.get_parent() != nullptr) {
    name = absl::StrCat(app.get_parent()->get_name(), " ", name);
  }
  PrintError(console, name, message);
  console.err << "See '" << name << " --help'.\n";
  return kExitUsage;
}

// The command that `root` has parsed, or `root` itself.
const CLI::App& Chosen(const CLI::App& root) {
  const std::vector<CLI::App*> parsed = root.get_subcommands();
  return parsed.empty() ? root : *parsed.front();
}

}  // namespace

std::unique_ptr<CLI::App> NewCommandLine() {
  auto root = std::make_unique<CLI::App>(
      "inference for transformer models, attention head by attention head",
      "headcount");
  root->option_defaults()->always_capture_default();
  root->formatter(std::make_shared<HelpFormatter>());
  root->require_subcommand(1, 1);
  root->set_version_flag("--version", "headcount " HEADCOUNT_VERSION,
                         "print the version and exit");
  root->footer(
      "'headcount COMMAND --help' explains a command, with examples. Each "
      "flag\n"
      "can be set by its environment variable, too: a flag wins over the\n"
      "environment, that over a configuration file, that over the default.\n"
      "\n"
      "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 server not available,\n"
      "130 interrupted.\n");
  return root;
}

CLI::App& AddCommand(CLI::App& root, const std::string& name,
                     const std::string& description) {
  CLI::App* app = root.add_subcommand(name, description);
  // With a callback, even an empty one, CLI11 reads the environment for the
  // chosen command only.
  app->parse_complete_callback([] {});
  return *app;
}

int RunCommand(CLI::App& root, const std::vector<Command>& commands,
               const std::vector<std::string>& args, Console& console) {
  for (const Command& command : commands) NameEnvironment(*command.app);
  if (const std::string message = UnknownCommand(root, args);
      !message.empty()) {
    return UsageError(root, message, console);
  }
  try {
    // CLI11 takes them from the back.
    root.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::CallForHelp&) {
    console.out << root.help();
    return kExitOk;
  } catch (const CLI::CallForVersion& version) {
    console.out << version.what() << "\n";
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    if (args.empty()) {
      console.err << root.help();
      return kExitUsage;
    }
    const CLI::App& chosen = Chosen(root);
    std::string message = UnknownFlag(chosen);
    if (message.empty()) {
      message = error.what();
      message += FromEnvironment(chosen, message, args);
    }
    return UsageError(chosen, message, console);
  }
  const auto command =
      std::find_if(commands.begin(), commands.end(),
                   [](const Command& c) { return c.app->parsed(); });
  const absl::Status status = command->run(console);
  console.out.flush();
  // Who pressed Ctrl-C knows.
  if (!status.ok() && !absl::IsCancelled(status)) {
    PrintError(console, root.get_name(), std::string(status.message()));
  }
  return ExitCodeOf(status);
}

}  // namespace headcount
