// Kinds of flags that CLI11 does not have, and the flags that many commands
// share. A value that is not understood throws CLI::ValidationError, which
// RunCommand turns into a usage error.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/time/time.h"

namespace headcount {

enum class OutputFormat { kTable, kJson };

// "64MiB", "24GiB".
CLI::Option* AddByteSize(CLI::App& app, const std::string& name,
                         std::function<void(int64_t)> set,
                         const std::string& description);

// "300s", "250ms".
CLI::Option* AddDuration(CLI::App& app, const std::string& name,
                         std::function<void(absl::Duration)> set,
                         const std::string& description);

// One of `choices`, as they are written.
CLI::Option* AddChoice(CLI::App& app, const std::string& name,
                       std::vector<std::string> choices,
                       std::function<void(const std::string&)> set,
                       const std::string& description);

// --output table|json
CLI::Option* AddOutput(CLI::App& app, OutputFormat* output);

// -m, --model NAME
CLI::Option* AddModel(CLI::App& app, std::string* model);

// --priority N
CLI::Option* AddPriority(CLI::App& app, int32_t* priority);

// Gives every long flag of `app` the environment variable HEADCOUNT_<FLAG>.
void NameEnvironment(CLI::App& app);

// The last part of a help page: commands with a word on each.
//
//   app.footer(Examples({{"a table of all models", "headcount list"}}));
std::string Examples(
    const std::vector<std::pair<std::string, std::string>>& examples);

}  // namespace headcount
