// What `serve` and `check` run: models and settings from a file, the
// environment and flags.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "headcount/config/v1/config.pb.h"
#include "server/config_paths.h"

namespace headcount {

struct ServerFlags {
  std::string config_path;          // --config; empty: none
  std::string models_dir;           // --models-dir; empty: none
  std::vector<std::string> models;  // folders, GGUF or YAML files
  std::string mask_file;            // for the one model of `models`
  std::string name;                 // the same
  // What flags and environment set, over the file.
  std::vector<std::function<void(config::v1::ServerConfig&)>> overrides;
};

// MODEL..., --config and every setting of a server. `flags` outlives `app`.
void AddServerFlags(CLI::App& app, ServerFlags* flags);

// Flag over environment over file over default. What it returns is valid; where
// its paths were named goes to `keys`.
absl::StatusOr<config::v1::ServerConfig> ReadConfiguration(
    const ServerFlags& flags, PathKeys* keys = nullptr);

}  // namespace headcount
