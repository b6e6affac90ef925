#include "cli/flags.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/human.h"
#include "cli/number_flags.h"
#include "server/limits.h"

namespace headcount {

CLI::Option* AddByteSize(CLI::App& app, const std::string& name,
                         std::function<void(int64_t)> set,
                         const std::string& description) {
  auto read = [name, set = std::move(set)](const std::string& text) {
    const absl::StatusOr<int64_t> bytes = ParseByteSize(text);
    if (!bytes.ok()) {
      throw CLI::ValidationError(name, std::string(bytes.status().message()));
    }
    set(*bytes);
  };
  return app.add_option_function<std::string>(name, read, description)
      ->type_name("SIZE");
}

CLI::Option* AddDuration(CLI::App& app, const std::string& name,
                         std::function<void(absl::Duration)> set,
                         const std::string& description) {
  auto read = [name, set = std::move(set)](const std::string& text) {
    const absl::StatusOr<absl::Duration> duration = ParseDuration(text);
    if (!duration.ok()) {
      throw CLI::ValidationError(name,
                                 std::string(duration.status().message()));
    }
    set(*duration);
  };
  return app.add_option_function<std::string>(name, read, description)
      ->type_name("DURATION");
}

CLI::Option* AddChoice(CLI::App& app, const std::string& name,
                       std::vector<std::string> choices,
                       std::function<void(const std::string&)> set,
                       const std::string& description) {
  auto read = [name, choices, set = std::move(set)](const std::string& text) {
    if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
      throw CLI::ValidationError(name,
                                 absl::StrCat("'", text, "' is not one of ",
                                              absl::StrJoin(choices, ", ")));
    }
    set(text);
  };
  return app.add_option_function<std::string>(name, read, description)
      ->type_name(absl::StrJoin(choices, "|"));
}

CLI::Option* AddOutput(CLI::App& app, OutputFormat* output) {
  return AddChoice(
             app, "--output", {"table", "json"},
             [output](const std::string& text) {
               *output =
                   text == "json" ? OutputFormat::kJson : OutputFormat::kTable;
             },
             "how to print the result")
      ->default_str("table");
}

CLI::Option* AddModel(CLI::App& app, std::string* model) {
  return app
      .add_option("-m,--model", *model,
                  "which model to ask; not needed if the server has just one")
      ->type_name("NAME");
}

CLI::Option* AddPriority(CLI::App& app, int32_t* priority) {
  return AddNumber(app, "--priority", priority, {-kMaxPriority, kMaxPriority},
                   "the higher, the sooner it is admitted");
}

void NameEnvironment(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty() || option == app.get_help_ptr()) continue;
    option->envname(absl::StrCat(
        "HEADCOUNT_", absl::AsciiStrToUpper(absl::StrReplaceAll(
                          option->get_lnames().front(), {{"-", "_"}}))));
  }
}

std::string Examples(
    const std::vector<std::pair<std::string, std::string>>& examples) {
  std::string text = "Examples:\n";
  for (const auto& [purpose, command] : examples) {
    absl::StrAppend(&text, "  # ", purpose, "\n  ", command, "\n");
  }
  return text;
}

}  // namespace headcount
