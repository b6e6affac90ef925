#include "cli/help.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "cli/console.h"

namespace headcount {
namespace {

constexpr int kTextColumn = 27;
constexpr int kWidth = 80;

std::string Spaces(int count) {
  return std::string(static_cast<size_t>(count), ' ');
}

// "  name   words", wrapped and lined up at kTextColumn. A word may have
// spaces: it is not broken.
std::string Entry(const std::string& name,
                  const std::vector<std::string>& words) {
  std::string result = absl::StrCat("  ", name);
  int column = Columns(result);
  if (column > kTextColumn - 2) {
    result += "\n";
    column = 0;
  }
  result += Spaces(kTextColumn - column);
  column = kTextColumn;
  for (const std::string& word : words) {
    const int width = Columns(word);
    if (column > kTextColumn && column + 1 + width > kWidth) {
      result += "\n" + Spaces(kTextColumn);
      column = kTextColumn;
    } else if (column > kTextColumn) {
      result += " ";
      ++column;
    }
    absl::StrAppend(&result, word);
    column += width;
  }
  return result + "\n";
}

std::string Entry(const std::string& name, const std::string& text) {
  const std::vector<std::string> words = absl::StrSplit(text, ' ');
  return Entry(name, words);
}

std::string FlagName(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) {
    names.push_back("-" + name);
  }
  for (const std::string& name : option.get_lnames()) {
    names.push_back("--" + name);
  }
  std::string text = absl::StrJoin(names, ", ");
  if (option.get_snames().empty()) text = "    " + text;
  if (option.get_type_size() != 0) {
    absl::StrAppend(&text, " ", option.get_type_name());
  }
  return text;
}

// What it does, its default and its environment variable.
std::vector<std::string> FlagWords(const CLI::Option& option) {
  std::vector<std::string> words =
      absl::StrSplit(option.get_description(), ' ');
  if (option.get_required()) words.emplace_back("[required]");
  const std::string& value = option.get_default_str();
  if (!value.empty() && value != "[]") {  // [] is CLI11's empty list
    words.push_back(absl::StrCat("[default ", value, "]"));
  }
  if (!option.get_envname().empty()) {
    words.push_back(absl::StrCat("[env ", option.get_envname(), "]"));
  }
  return words;
}

std::string PositionalName(const CLI::Option& option) {
  const std::string name = option.get_name(true);
  return option.get_expected_max() > 1 ? name + "..." : name;
}

std::string Usage(const CLI::App& app, const std::string& name) {
  std::string usage = absl::StrCat("Usage: ", name);
  if (!app.get_subcommands({}).empty()) return usage + " COMMAND [flags]\n";
  usage += " [flags]";
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) continue;
    const std::string word = PositionalName(*option);
    absl::StrAppend(&usage, " ",
                    option->get_required() ? word : "[" + word + "]");
  }
  return usage + "\n";
}

std::string Positionals(const CLI::App& app) {
  std::string text;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) continue;
    text += Entry(PositionalName(*option), option->get_description());
  }
  return text.empty() ? "" : "\n" + text;
}

std::string Flags(const CLI::App& app) {
  std::string text;
  for (const std::string& group : app.get_groups()) {
    std::string entries;
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_group() != group || !option->nonpositional() ||
          option == app.get_help_ptr()) {
        continue;
      }
      entries += Entry(FlagName(*option), FlagWords(*option));
    }
    if (entries.empty() || group.empty()) continue;
    absl::StrAppend(&text, "\n", group == "Options" ? "Flags" : group, ":\n",
                    entries);
  }
  return text;
}

std::vector<CLI::App*> ShownCommands(CLI::App& app) {
  return app.get_subcommands(
      [](CLI::App* command) { return !command->get_group().empty(); });
}

std::string Commands(const CLI::App& app) {
  std::string text;
  for (const CLI::App* command : app.get_subcommands(
           [](const CLI::App* sub) { return !sub->get_group().empty(); })) {
    text += Entry(command->get_name(), command->get_description());
  }
  return text.empty() ? "" : "\nCommands:\n" + text;
}

}  // namespace

std::string HelpFormatter::make_help(const CLI::App* app, std::string name,
                                     CLI::AppFormatMode) const {
  std::string page = absl::StrCat(name, ": ", app->get_description(), "\n\n",
                                  Usage(*app, name), Positionals(*app),
                                  Flags(*app), Commands(*app));
  if (!app->get_footer().empty()) {
    absl::StrAppend(&page, "\n", app->get_footer());
  }
  return page;
}

std::string HelpMarkdown(CLI::App& root) {
  std::string text =
      "# The command line\n\n"
      "Generated by `headcount help-markdown`; a test compares it with the "
      "binary.\n";
  const std::string& name = root.get_name();
  const CLI::FormatterBase& formatter = *root.get_formatter();
  absl::StrAppend(&text, "\n```text\n",
                  formatter.make_help(&root, name, CLI::AppFormatMode::Normal),
                  "```\n");
  for (CLI::App* command : ShownCommands(root)) {
    const std::string full = absl::StrCat(name, " ", command->get_name());
    absl::StrAppend(
        &text, "\n## ", full, "\n\n```text\n",
        formatter.make_help(command, full, CLI::AppFormatMode::Normal),
        "```\n");
  }
  return text;
}

}  // namespace headcount
